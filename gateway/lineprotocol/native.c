/* Many like lines at once, compiled: the usual line at memory speed, nothing else.
 *
 * Known are heads (series) and the forms of field set each had before; what they are was proven in Python
 * (bulk.py), which registers them. A line is read if its head is known, its field keys are those of a form of
 * that head, and its values are plain. At the first line that is otherwise, reading stops, and Python reads
 * from there. So there is no error here, and no rule of line protocol that bulk.py does not have.
 *
 * Optional: without a compiler, or on another interpreter, bulk.py reads everything.
 */

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <float.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

enum kind { KIND_FLOAT = 1, KIND_INTEGER = 2, KIND_STRING = 3, KIND_BOOLEAN = 4 }; /* FieldType */

enum { MAX_NUMBER = 400 }; /* bytes of a number that are copied for the exact conversion */

enum {
    LINES_AT_ONCE = 256,   /* some 0.1 ms; then other threads may run, queries above all */
    LINES_BETWEEN = 1024,  /* a multiple; then the caller may do something else */
};

/* An int64 array that grows. */
typedef struct {
    int64_t *items;
    Py_ssize_t size, capacity;
} Slots;

static int
reserve(Slots *slots, Py_ssize_t more)
{
    if (slots->size + more <= slots->capacity)
        return 0;
    Py_ssize_t capacity = 2 * slots->capacity + more + 256;
    int64_t *items = PyMem_Realloc(slots->items, (size_t)capacity * sizeof(int64_t));
    if (items == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    slots->items = items;
    slots->capacity = capacity;
    return 0;
}

static int
is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* Return whether a value may end at p. */
static int
is_end(const char *p, const char *end)
{
    return p == end || *p == ',' || *p == ' ' || *p == '\n' || *p == '\r';
}

/* Return the start of the next line if one ends at p, else NULL. A carriage return belongs to the line end. */
static const char *
after_line_end(const char *p, const char *end)
{
    if (p < end && *p == '\r')
        p++;
    if (p == end)
        return p;
    return *p == '\n' ? p + 1 : NULL;
}

/* Return the start of the next line if the one at p is blank or a comment without quotes and backslashes, else NULL. */
static const char *
after_idle_line(const char *p, const char *end)
{
    while (p < end && (*p == ' ' || *p == '\t' || *p == 0))
        p++;
    if (p == end || *p != '#')
        return after_line_end(p, end);
    const char *stop = memchr(p, '\n', (size_t)(end - p));
    stop = stop == NULL ? end : stop;
    if (memchr(p, '"', (size_t)(stop - p)) != NULL || memchr(p, '\\', (size_t)(stop - p)) != NULL)
        return NULL;
    return after_line_end(stop, end);
}

/* Powers of ten that a double holds exactly. */
static const double POWERS[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,  1e10, 1e11,
                                1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};

#ifdef __SIZEOF_INT128__
typedef unsigned __int128 wide;

enum { MAX_DIVISION = 27 }; /* 5^27 fits 63 bits */

/* 1 / 5^k as a fraction of 128 bits, truncated: between (high, low) / 2^(127 + bits) and one unit above, never exact. */
static struct {
    uint64_t power, high, low;
    int bits; /* of 5^k */
} fifths[MAX_DIVISION + 1];

static void
fill_fifths(void)
{
    uint64_t power = 1;
    for (int k = 1; k <= MAX_DIVISION; k++) {
        power *= 5;
        int bits = 64 - __builtin_clzll(power);
        wide dividend = (wide)1 << (63 + bits);
        fifths[k].power = power;
        fifths[k].bits = bits;
        fifths[k].high = (uint64_t)(dividend / power);
        fifths[k].low = (uint64_t)(((dividend % power) << 64) / power);
    }
}

/* Return mantissa / 2^exponent; exact, since the mantissa has 53 bits and the result is no denormal. */
static double
scaled(uint64_t mantissa, int exponent)
{
    uint64_t bits = (uint64_t)(1023 - exponent) << 52;
    double power;
    memcpy(&power, &bits, sizeof power);
    return (double)mantissa * power;
}

/* Return the double nearest to mantissa / 10^k, exactly: a long division, rounded half to even. */
static double
divide_slowly(uint64_t mantissa, int k)
{
    int shift = 63 + __builtin_clzll(mantissa);
    wide dividend = (wide)mantissa << shift; /* 127 bits: a quotient of 64 bits and more */
    wide quotient = dividend / fifths[k].power;
    int is_inexact = quotient * fifths[k].power != dividend;
    uint64_t high = (uint64_t)(quotient >> 64);
    int bits = high != 0 ? 128 - __builtin_clzll(high) : 64 - __builtin_clzll((uint64_t)quotient);
    int excess = bits - 54; /* all but 53 bits and the one to round by */
    is_inexact |= (quotient & (((wide)1 << excess) - 1)) != 0;
    uint64_t top = (uint64_t)(quotient >> excess);
    uint64_t rounded = (top >> 1) + ((top & 1) && (is_inexact || (top & 2)));
    return scaled(rounded, shift + k - excess - 1);
}

/* The same, mantissa > 0 and 1 <= k <= MAX_DIVISION, by a multiplication. The product is less than one unit too small,
 * so its upper bits are right unless all bits below them are set; and it is never exact, so the bit to round by decides
 * alone. What is exactly half way, or a double, has all those bits set. */
static double
divide(uint64_t mantissa, int k)
{
    int zeros = __builtin_clzll(mantissa);
    uint64_t normal = mantissa << zeros;
    wide product = (wide)normal * fifths[k].high + (((wide)normal * fifths[k].low) >> 64); /* of 127 or 128 bits */
    int excess = product >> 127 ? 74 : 73;
    wide below = ((wide)1 << excess) - 1;
    if ((product & below) == below)
        return divide_slowly(mantissa, k);
    uint64_t top = (uint64_t)(product >> excess);
    return scaled((top >> 1) + (top & 1), 63 + zeros + fifths[k].bits + k - excess - 1);
}
#endif

/* The readers below return the end of the value, or NULL where it is not plain. */

static const char *
read_float(const char *p, const char *end, int64_t *slot)
{
    const char *start = p;
    uint64_t mantissa = 0;
    int digits = 0, fraction = 0, exponent = 0;
    int negative = p < end && *p == '-';
    p += negative;
    for (; p < end && is_digit(*p); p++, digits++)
        mantissa = mantissa * 10 + (uint64_t)(*p - '0');
    if (p < end && *p == '.')
        for (p++; p < end && is_digit(*p); p++, digits++, fraction++)
            mantissa = mantissa * 10 + (uint64_t)(*p - '0');
    if (digits == 0)
        return NULL;
    int is_plain = digits <= 19;
    if (p < end && (*p == 'e' || *p == 'E')) {
        int minus = 0;
        p++;
        if (p < end && (*p == '+' || *p == '-'))
            minus = *p++ == '-';
        if (p == end || !is_digit(*p))
            return NULL;
        for (; p < end && is_digit(*p); p++)
            if (exponent < 10000)
                exponent = exponent * 10 + (*p - '0');
        exponent = minus ? -exponent : exponent;
    }
    if (!is_end(p, end))
        return NULL;
    exponent -= fraction;
    double value;
    /* Clinger's fast path: both operands are exact, so one operation rounds once. */
    if (FLT_EVAL_METHOD == 0 && is_plain && mantissa <= (1ULL << 53) && exponent >= -22 && exponent <= 22) {
        value = (double)mantissa;
        value = exponent < 0 ? value / POWERS[-exponent] : value * POWERS[exponent];
        value = negative ? -value : value;
#ifdef __SIZEOF_INT128__
    } else if (is_plain && mantissa > 0 && exponent >= -MAX_DIVISION && exponent < 0) {
        value = divide(mantissa, -exponent);
        value = negative ? -value : value;
#endif
    } else {
        char text[MAX_NUMBER + 1];
        size_t size = (size_t)(p - start);
        if (size > MAX_NUMBER)
            return NULL;
        memcpy(text, start, size);
        text[size] = 0;
        char *stop;
        value = PyOS_string_to_double(text, &stop, NULL);
        if (PyErr_Occurred())
            PyErr_Clear();
        if (stop != text + size || !isfinite(value))
            return NULL;
    }
    memcpy(slot, &value, sizeof value);
    return p;
}

/* Read -?digits, at most 19 of them, within int64. */
static const char *
read_digits(const char *p, const char *end, int64_t *slot)
{
    uint64_t value = 0;
    int negative = p < end && *p == '-';
    p += negative;
    const char *first = p;
    for (; p < end && is_digit(*p) && p - first < 19; p++)
        value = value * 10 + (uint64_t)(*p - '0'); /* 19 digits fit uint64 */
    if (p == first || (p < end && is_digit(*p)) || value > (uint64_t)INT64_MAX + (uint64_t)negative)
        return NULL;
    *slot = (int64_t)(negative ? 0 - value : value);
    return p;
}

static const char *
read_integer(const char *p, const char *end, int64_t *slot)
{
    p = read_digits(p, end, slot);
    if (p == NULL || p == end || *p != 'i' || !is_end(p + 1, end))
        return NULL;
    return p + 1;
}

static const char *
read_string(const char *p, const char *end, int64_t *slot, PyObject *strings)
{
    if (p == end || *p != '"')
        return NULL;
    const char *first = ++p;
    while (p < end && *p != '"' && *p != '\\')
        p++;
    if (p == end || *p != '"' || !is_end(p + 1, end))
        return NULL;
    PyObject *text = PyUnicode_DecodeUTF8(first, p - first, NULL);
    if (text == NULL) { /* not UTF-8; or no memory, which will show again */
        PyErr_Clear();
        return NULL;
    }
    *slot = PyList_GET_SIZE(strings);
    int failed = PyList_Append(strings, text);
    Py_DECREF(text);
    if (failed) {
        PyErr_Clear();
        return NULL;
    }
    return p + 1;
}

static const char *
read_boolean(const char *p, const char *end, int64_t *slot)
{
    static const char *const WORDS[] = {"t", "T", "true", "True", "TRUE", "f", "F", "false", "False", "FALSE"};
    for (int i = 0; i < 10; i++) {
        size_t size = strlen(WORDS[i]);
        if ((size_t)(end - p) >= size && memcmp(p, WORDS[i], size) == 0 && is_end(p + size, end)) {
            *slot = i < 5;
            return p + size;
        }
    }
    return NULL;
}

static const char *
read_value(const char *p, const char *end, int kind, int64_t *slot, PyObject *strings)
{
    switch (kind) {
    case KIND_FLOAT:
        return read_float(p, end, slot);
    case KIND_INTEGER:
        return read_integer(p, end, slot);
    case KIND_STRING:
        return read_string(p, end, slot, strings);
    case KIND_BOOLEAN:
        return read_boolean(p, end, slot);
    default:
        return NULL;
    }
}

/* Read a field set of one form: (template, keys, kinds, sizes of the keys as uint16). */
static const char *
read_fields(const char *p, const char *end, PyObject *form, Slots *slots, PyObject *strings)
{
    const char *key = PyBytes_AS_STRING(PyTuple_GET_ITEM(form, 1));
    PyObject *kinds = PyTuple_GET_ITEM(form, 2);
    const char *sizes = PyBytes_AS_STRING(PyTuple_GET_ITEM(form, 3));
    Py_ssize_t n = PyBytes_GET_SIZE(kinds);
    for (Py_ssize_t i = 0; i < n; i++) {
        uint16_t size;
        memcpy(&size, sizes + 2 * i, sizeof size);
        if (i > 0) {
            if (p == end || *p != ',')
                return NULL;
            p++;
        }
        if (end - p < size || memcmp(p, key, size) != 0)
            return NULL;
        key += size;
        p = read_value(p + size, end, PyBytes_AS_STRING(kinds)[i], &slots->items[slots->size + i], strings);
        if (p == NULL)
            return NULL;
    }
    if (p < end && *p == ',')
        return NULL;
    slots->size += n;
    return p;
}

/* Forget what a form that did not fit put into the list. */
static int
drop_strings(PyObject *strings, Py_ssize_t n)
{
    Py_ssize_t size = PyList_GET_SIZE(strings);
    return size == n ? 0 : PyList_SetSlice(strings, n, size, NULL);
}

/* Return the end of the head: the first blank without a backslash before it. */
static const char *
head_end(const char *p, const char *end)
{
    for (const char *at = p; (at = memchr(at, ' ', (size_t)(end - at))) != NULL; at++)
        if (at == p || at[-1] != '\\')
            return at;
    return NULL;
}

/* Return the entry of a head, borrowed; NULL if it is unknown. Their heads begin with a line feed, and \x01 stands for
 * escaped blanks. */
static PyObject *
find_entry(const char *p, const char *stop, PyObject *heads)
{
    Py_ssize_t size = stop - p;
    PyObject *raw = PyBytes_FromStringAndSize(NULL, size + 1);
    if (raw == NULL)
        return NULL;
    char *text = PyBytes_AS_STRING(raw);
    text[0] = '\n';
    memcpy(text + 1, p, (size_t)size);
    if (memchr(text, '\\', (size_t)size + 1) != NULL)
        for (Py_ssize_t i = 1; i < size; i++) {
            if (text[i] == '\\' && text[i + 1] == ' ')
                text[i + 1] = 1;
            else if (text[i] == '\\' && text[i + 1] == 1) {
                Py_DECREF(raw);
                return NULL;
            }
        }
    PyObject *entry = PyDict_GetItemWithError(heads, raw);
    Py_DECREF(raw);
    return entry;
}

/* What the caller remembers of heads, and what it collects: all of it belongs to the caller. */
typedef struct {
    PyObject *heads;      /* dict: head to entry */
    PyObject *order;      /* list: number of an entry to its head, the object that is the key of `heads` */
    PyObject *successors; /* bytearray of int32: number of an entry to the one that followed it last */
    PyObject *keys;       /* dict: series key to row */
    PyObject *layouts;    /* dict: template to row */
    PyObject *strings;    /* list */
} Caller;

typedef struct {
    Slots times, values;
    Slots rows; /* of a line: row of its key, row of its layout */
    Py_ssize_t last; /* number of the entry of the line before, -1 before the first */
} Lines;

/* Return where the successor of an entry is noted, NULL if there is no such entry. */
static char *
successor(const Caller *caller, Py_ssize_t number)
{
    Py_ssize_t size = (Py_ssize_t)sizeof(int32_t);
    if (number < 0 || (number + 1) * size > PyByteArray_GET_SIZE(caller->successors))
        return NULL;
    return PyByteArray_AS_STRING(caller->successors) + number * size;
}

/* Return the entry of the head at p if it is the one that followed the last line's before, borrowed, else NULL. What
 * comes after a head is nearly always the same: this spares making it an object and hashing it. */
static PyObject *
guess_entry(const char *p, const char *end, const Caller *caller, Py_ssize_t last, const char **stop)
{
    const char *noted = successor(caller, last);
    if (noted == NULL)
        return NULL;
    int32_t number;
    memcpy(&number, noted, sizeof number);
    if (number < 0 || number >= PyList_GET_SIZE(caller->order))
        return NULL;
    PyObject *raw = PyList_GET_ITEM(caller->order, number);
    const char *head = PyBytes_AS_STRING(raw) + 1; /* behind its line feed */
    Py_ssize_t size = PyBytes_GET_SIZE(raw) - 1;
    /* A head with a backslash may stand here in another form: then it is looked up. */
    if (end - p <= size || p[size] != ' ' || memcmp(p, head, (size_t)size) != 0 ||
        memchr(head, '\\', (size_t)size) != NULL)
        return NULL;
    *stop = p + size;
    return PyDict_GetItemWithError(caller->heads, raw);
}

/* Return the number that a dict gives to an object, the next one if it is new; -1 on an error. */
static int64_t
row_of(PyObject *rows, PyObject *object)
{
    PyObject *known = PyDict_GetItemWithError(rows, object);
    if (known != NULL)
        return (int64_t)PyLong_AsLongLong(known);
    if (PyErr_Occurred())
        return -1;
    Py_ssize_t row = PyDict_GET_SIZE(rows);
    PyObject *number = PyLong_FromSsize_t(row);
    int failed = number == NULL || PyDict_SetItem(rows, object, number) < 0;
    Py_XDECREF(number);
    return failed ? -1 : (int64_t)row;
}

/* Note a line that was read; -1 on an error. */
static int
note_line(const Caller *caller, Lines *lines, PyObject *entry, PyObject *template, int64_t time)
{
    int64_t key_row = row_of(caller->keys, PyTuple_GET_ITEM(entry, 0));
    int64_t layout_row = key_row < 0 ? -1 : row_of(caller->layouts, template);
    if (layout_row < 0 || reserve(&lines->times, 1) < 0 || reserve(&lines->rows, 1) < 0)
        return -1;
    lines->times.items[lines->times.size++] = time;
    lines->rows.items[lines->rows.size++] = key_row << 32 | layout_row;
    int32_t number = (int32_t)PyLong_AsLong(PyTuple_GET_ITEM(entry, 3));
    char *noted = successor(caller, lines->last);
    if (noted != NULL)
        memcpy(noted, &number, sizeof number);
    lines->last = number;
    return 0;
}

/* Read one line; return the start of the next, or NULL if it is not plain. */
static const char *
read_line(const char *p, const char *end, int64_t unit, int64_t default_ns, const Caller *caller, Lines *lines)
{
    const char *stop = NULL;
    PyObject *entry = guess_entry(p, end, caller, lines->last, &stop);
    if (entry == NULL && !PyErr_Occurred()) {
        stop = head_end(p, end);
        entry = stop == NULL ? NULL : find_entry(p, stop, caller->heads);
    }
    if (entry == NULL)
        return NULL;
    PyObject *forms = PyTuple_GET_ITEM(entry, 2);
    PyObject *strings = caller->strings;
    Py_ssize_t n_strings = PyList_GET_SIZE(strings);
    Py_ssize_t n_values = lines->values.size;
    const char *found = NULL;
    PyObject *form = NULL;
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(forms) && found == NULL; i++) {
        form = PyTuple_GET_ITEM(forms, i);
        if (drop_strings(strings, n_strings) < 0 ||
            reserve(&lines->values, PyBytes_GET_SIZE(PyTuple_GET_ITEM(form, 2))) < 0)
            return NULL;
        found = read_fields(stop + 1, end, form, &lines->values, strings);
    }
    int64_t time = default_ns;
    if (found != NULL && found < end && *found == ' ') {
        int64_t limit = (INT64_MAX - 1) / unit; /* influxd: MaxNanoTime */
        found = read_digits(found + 1, end, &time);
        if (found != NULL && (time < -limit || time > limit))
            found = NULL;
        time = found == NULL ? 0 : time * unit;
    }
    if (found != NULL)
        found = after_line_end(found, end);
    if (found == NULL) {
        lines->values.size = n_values;
        drop_strings(strings, n_strings);
        return NULL;
    }
    return note_line(caller, lines, entry, PyTuple_GET_ITEM(form, 0), time) < 0 ? NULL : found;
}

/* Let other threads run, and the caller, which may read other lines by the same objects: nothing borrowed from them is
 * held between two lines. Returns -1 on an error. */
static int
let_others_run(PyObject *between)
{
    Py_BEGIN_ALLOW_THREADS
    Py_END_ALLOW_THREADS
    if (between == Py_None)
        return 0;
    PyObject *nothing = PyObject_CallNoArgs(between);
    Py_XDECREF(nothing);
    return nothing == NULL ? -1 : 0;
}

static PyObject *
read_lines(PyObject *Py_UNUSED(module), PyObject *args)
{
    PyObject *text, *between;
    Caller caller;
    Py_ssize_t at;
    long long unit, default_ns;
    if (!PyArg_ParseTuple(args, "SnLLO!O!O!O!O!O!O", &text, &at, &unit, &default_ns, &PyDict_Type, &caller.heads,
                          &PyList_Type, &caller.order, &PyByteArray_Type, &caller.successors, &PyDict_Type,
                          &caller.keys, &PyDict_Type, &caller.layouts, &PyList_Type, &caller.strings, &between))
        return NULL;
    if (unit <= 0 || at < 0 || at > PyBytes_GET_SIZE(text)) {
        PyErr_SetString(PyExc_ValueError, "unit_ns must be positive, start within the text");
        return NULL;
    }
    Lines lines = {{NULL, 0, 0}, {NULL, 0, 0}, {NULL, 0, 0}, -1};
    const char *start = PyBytes_AS_STRING(text), *end = start + PyBytes_GET_SIZE(text), *p = start + at;
    PyObject *answer = NULL;
    if (reserve(&lines.times, 1) == 0 && reserve(&lines.values, 1) == 0 && reserve(&lines.rows, 1) == 0) {
        for (Py_ssize_t n = 1; p < end; n++) {
            if (n % LINES_AT_ONCE == 0 && let_others_run(n % LINES_BETWEEN ? Py_None : between) < 0)
                break;
            const char *next = after_idle_line(p, end);
            if (next == NULL)
                next = read_line(p, end, unit, default_ns, &caller, &lines);
            if (next == NULL)
                break;
            p = next;
        }
        Py_ssize_t slot = (Py_ssize_t)sizeof(int64_t);
        if (!PyErr_Occurred())
            answer = Py_BuildValue("ny#y#y#", (Py_ssize_t)(p - start), (const char *)lines.times.items,
                                   lines.times.size * slot, (const char *)lines.values.items, lines.values.size * slot,
                                   (const char *)lines.rows.items, lines.rows.size * slot);
    }
    PyMem_Free(lines.times.items);
    PyMem_Free(lines.values.items);
    PyMem_Free(lines.rows.items);
    return answer;
}

static PyMethodDef methods[] = {
    {"read_lines", read_lines, METH_VARARGS,
     "read_lines(text, start, unit_ns, default_ns, heads, order, successors, keys, layouts, strings, between) -> "
     "(end, times, values, rows)\n\nkeys, layouts and strings get those of the lines read; a row is "
     "key row << 32 | layout row. between, if not None, is called now and then."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_native", NULL, -1, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC
PyInit__native(void)
{
#ifdef __SIZEOF_INT128__
    fill_fifths();
#endif
    return PyModule_Create(&module);
}
