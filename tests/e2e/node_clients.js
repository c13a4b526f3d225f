// What the npm packages `influx` and `@influxdata/influxdb-client` do with a server, as one JSON document.
// node node_clients.js HOST PORT, with both packages in NODE_PATH.
const Influx = require("influx");
const { InfluxDB, Point } = require("@influxdata/influxdb-client");

const [host, port] = [process.argv[2], Number(process.argv[3])];
const { FLOAT, INTEGER, STRING, BOOLEAN } = Influx.FieldType;
const schema = [{ measurement: "m", fields: { f: FLOAT, i: INTEGER, s: STRING, b: BOOLEAN }, tags: ["host"] }];

async function refusalOf(promise) {
  try {
    await promise;
    return null;
  } catch (error) {
    return error.message;
  }
}

async function version1() {
  const db = new Influx.InfluxDB({ host, port, database: "t", schema });
  const found = { ping: (await db.ping(5000)).map((host) => host.online) };
  await db.createDatabase("t");
  found.databases = (await db.getDatabaseNames()).filter((name) => name !== "_internal");
  const points = [1, 2, 3].map((n) => ({
    measurement: "m",
    tags: { host: "a,b =c" },
    fields: { f: n + 0.5, i: n, s: 'say "hi"\nthere', b: n % 2 === 0 },
    timestamp: new Date(1700000000000 + n),
  }));
  await db.writePoints(points, { precision: "ms" });
  const rows = await db.query("select * from m order by time desc limit 2");
  found.rows = rows.map(({ time, ...rest }) => ({ time: time.getNanoTime(), ...rest }));
  const grouped = await db.query("select mean(f) from m group by host");
  found.groups = grouped.groups().map((group) => [group.tags.host, group.rows[0].mean]);
  found.measurements = await db.getMeasurements();
  found.series = await db.getSeries();
  const placeholders = { h: "a,b =c" };
  const counted = await db.query("select count(f) from m where host = $h", { placeholders });
  found.counted = counted.map((row) => row.count);
  found.queryRefusal = await refusalOf(db.query("select nothing from"));
  const lost = [{ fields: { i: 1 }, tags: {} }];
  found.writeRefusal = await refusalOf(db.writeMeasurement("m", lost, { database: "nowhere" }));
  await db.createRetentionPolicy("p", { duration: "1h", replication: 1, database: "t" });
  found.policies = (await db.showRetentionPolicies("t")).map((row) => [row.name, row.duration]);
  await db.dropMeasurement("m", "t");
  found.left = await db.getMeasurements();
  return found;
}

async function version2() {
  const api = new InfluxDB({ url: `http://${host}:${port}`, token: "" }).getWriteApi("me", "t", "ns");
  for (let n = 0; n < 1000; n++) {
    const time = String(1700000000000000000n + BigInt(n));
    api.writePoint(new Point("v2").tag("host", "x").intField("i", n).timestamp(time));
  }
  await api.close();
}

(async () => {
  const found = await version1();
  if (process.argv[4] !== "1") await version2();
  console.log(JSON.stringify(found));
})().catch((error) => {
  console.error(error);
  process.exit(1);
});
