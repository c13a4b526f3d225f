"""The InfluxQL language: text to tree and back. No engine, no clock.

    parser.parse(text, params)     text -> the statements of ast, or errors.ParseError
    printer.to_influxql(node)      the way back
    ast                            the tree

Behind them: influxql.lark (the grammar), lexer and parameters (text and bound values to tokens),
lalr (runs the grammar's table), build_select and build_statements (rules to tree), refusals and
expected (influxd's words for what is wrong), words, durations, regexes (one small thing each).
"""
