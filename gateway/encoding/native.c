/* Columns as the rows of a JSON document, compiled.
 *
 * What json.py does with Python values and orjson, without making a value for each cell. Optional: without a
 * compiler, or on another interpreter, json.py does it so.
 */

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdint.h>
#include <string.h>

enum kind { INTEGERS, FLAGS, TEXTS, PRINTED };

enum {
    SHORT_BYTES = 32,       /* always free behind a cell: copies of this size need no loop */
    MOST_DIGITS = 19,       /* of an int64 */
    ESCAPED_BYTES = 6,      /* of a byte of text at most */
    FIRST_CELL_BYTES = 12,  /* what is set aside for a cell before any is known */
    KNOWN_TEXTS = 256,     /* of a column, that are printed once; a power of 2 */
};

/* A text that was printed: where. */
typedef struct {
    const PyObject *value;
    Py_ssize_t start, size;
} Known;

/* A column that is read. */
typedef struct {
    enum kind kind;
    Py_buffer values, valid;   /* obj is NULL where there is none */
    const char *cursor, *end;  /* of what is printed: the next cell */
    Known *known;              /* of texts: tags and states are the same objects again and again */
} Column;

static char pairs[200]; /* 00 to 99 */
static char is_special[256]; /* bytes of text that are, or may begin, what is escaped */

/* Bytes that grow. */
typedef struct {
    PyObject *bytes;
    char *at, *end;
} Output;

/* Have room for so many bytes, and SHORT_BYTES more. */
static int
reserve(Output *output, Py_ssize_t more)
{
    more += SHORT_BYTES;
    if (output->end - output->at >= more)
        return 0;
    char *start = PyBytes_AS_STRING(output->bytes);
    Py_ssize_t used = output->at - start;
    Py_ssize_t capacity = 2 * (output->end - start) + more;
    if (_PyBytes_Resize(&output->bytes, capacity) < 0)
        return -1;
    output->at = PyBytes_AS_STRING(output->bytes) + used;
    output->end = PyBytes_AS_STRING(output->bytes) + capacity;
    return 0;
}

static void
put_integer(Output *output, int64_t value)
{
    uint64_t left = value < 0 ? 0 - (uint64_t)value : (uint64_t)value;
    if (value < 0)
        *output->at++ = '-';
    int n_digits = 1;
    for (uint64_t bound = 10; left >= bound; bound *= 10)
        if (++n_digits == MOST_DIGITS)
            break;
    output->at += n_digits;
    char *at = output->at; /* in place: wide copies of what was just written would wait for it */
    while (left >= 100) {
        at -= 2;
        memcpy(at, pairs + 2 * (left % 100), 2);
        left /= 100;
    }
    if (left >= 10)
        memcpy(at - 2, pairs + 2 * left, 2);
    else
        at[-1] = (char)('0' + left);
}

/* As orjson prints text, and what Go's encoder escapes besides: <, >, &, U+2028 and U+2029. */
static int
put_text(Output *output, PyObject *value)
{
    static const char hex[] = "0123456789abcdef";
    Py_ssize_t size;
    if (!PyUnicode_Check(value)) {
        PyErr_SetString(PyExc_TypeError, "no text");
        return -1;
    }
    const char *text = PyUnicode_AsUTF8AndSize(value, &size);
    if (text == NULL || reserve(output, ESCAPED_BYTES * size + 2) < 0)
        return -1;
    char *at = output->at;
    *at++ = '"';
    for (const char *end = text + size; text < end; text++) {
        unsigned char c = (unsigned char)*text;
        char short_form = 0;
        if (!is_special[c]) {
            *at++ = (char)c;
            continue;
        }
        switch (c) {
        case '"': case '\\': short_form = (char)c; break;
        case '\b': short_form = 'b'; break;
        case '\t': short_form = 't'; break;
        case '\n': short_form = 'n'; break;
        case '\f': short_form = 'f'; break;
        case '\r': short_form = 'r'; break;
        default: break;
        }
        if (short_form) {
            *at++ = '\\';
            *at++ = short_form;
        } else if (c < 0x20 || c == '<' || c == '>' || c == '&') {
            memcpy(at, "\\u00", 4);
            at[4] = hex[c >> 4];
            at[5] = hex[c & 15];
            at += 6;
        } else if (c == 0xe2 && end - text > 2 && text[1] == '\x80'
                   && (text[2] == '\xa8' || text[2] == '\xa9')) {
            memcpy(at, text[2] == '\xa8' ? "\\u2028" : "\\u2029", 6);
            at += 6;
            text += 2;
        } else {
            *at++ = (char)c;
        }
    }
    *at++ = '"';
    output->at = at;
    return 0;
}

/* Print a text, or what was printed of it before. */
static int
put_known(Output *output, Column *column, PyObject *value)
{
    Known *known = column->known + ((uintptr_t)value >> 4) % KNOWN_TEXTS;
    if (known->value != value) {
        Py_ssize_t start = output->at - PyBytes_AS_STRING(output->bytes);
        if (put_text(output, value) < 0)
            return -1;
        *known = (Known){value, start, output->at - PyBytes_AS_STRING(output->bytes) - start};
        return 0;
    }
    if (reserve(output, known->size) < 0)
        return -1;
    const char *before = PyBytes_AS_STRING(output->bytes) + known->start;
    if (known->size <= SHORT_BYTES)
        memmove(output->at, before, SHORT_BYTES);
    else
        memcpy(output->at, before, (size_t)known->size);
    output->at += known->size;
    return 0;
}

/* A number that orjson printed; Go prints whole floats without `.0`. */
static int
put_printed(Output *output, Column *column, int is_valid)
{
    const char *start = column->cursor, *stop = start;
    while (stop < column->end && *stop != ',' && *stop != ']')
        stop++;
    if (stop == column->end) {
        PyErr_SetString(PyExc_ValueError, "too few cells");
        return -1;
    }
    column->cursor = stop + 1;
    Py_ssize_t size = stop - start;
    if (size > 2 && stop[-1] == '0' && stop[-2] == '.')
        size -= 2;
    if (!is_valid)
        start = "null", size = 4;
    if (reserve(output, size) < 0)
        return -1;
    memcpy(output->at, start, (size_t)size);
    output->at += size;
    return 0;
}

static int
put_cell(Output *output, Column *column, Py_ssize_t row)
{
    int is_valid = column->valid.obj == NULL || ((const char *)column->valid.buf)[row];
    if (column->kind == PRINTED)
        return put_printed(output, column, is_valid);
    if (is_valid && column->kind == TEXTS) {
        PyObject *value = ((PyObject **)column->values.buf)[row];
        if (value != NULL && value != Py_None)
            return put_known(output, column, value);
        is_valid = 0;
    }
    if (reserve(output, SHORT_BYTES) < 0)
        return -1;
    if (is_valid && column->kind == INTEGERS) {
        put_integer(output, ((const int64_t *)column->values.buf)[row]);
        return 0;
    }
    const char *word = !is_valid ? "null" : ((const char *)column->values.buf)[row] ? "true" : "false";
    Py_ssize_t size = (Py_ssize_t)strlen(word);
    memcpy(output->at, word, (size_t)size);
    output->at += size;
    return 0;
}

static void
close_column(Column *column)
{
    if (column->values.obj != NULL)
        PyBuffer_Release(&column->values);
    if (column->valid.obj != NULL)
        PyBuffer_Release(&column->valid);
    PyMem_Free(column->known);
}

/* Get the memory of an array; the caller releases it also after an error. */
static int
open_array(PyObject *array, Py_buffer *buffer, Py_ssize_t n_rows, Py_ssize_t item_bytes)
{
    if (PyObject_GetBuffer(array, buffer, PyBUF_ND | PyBUF_FORMAT) < 0)
        return -1;
    if (buffer->len != n_rows * item_bytes || buffer->itemsize != item_bytes) {
        PyErr_SetString(PyExc_ValueError, "an array of another size");
        return -1;
    }
    return 0;
}

static int
open_column(PyObject *pair, Column *column, Py_ssize_t n_rows)
{
    PyObject *values, *valid;
    if (!PyTuple_Check(pair) || !PyArg_ParseTuple(pair, "OO", &values, &valid))
        return -1;
    if (valid != Py_None && open_array(valid, &column->valid, n_rows, 1) < 0)
        return -1;
    if (PyBytes_Check(values)) {
        column->kind = PRINTED;
        column->cursor = PyBytes_AS_STRING(values);
        column->end = column->cursor + PyBytes_GET_SIZE(values);
        column->cursor += column->cursor < column->end; /* its bracket */
        return 0;
    }
    if (PyObject_GetBuffer(values, &column->values, PyBUF_ND | PyBUF_FORMAT) < 0)
        return -1;
    char format = column->values.format == NULL ? 'B' : column->values.format[0];
    Py_ssize_t item_bytes = column->values.itemsize;
    if ((format == 'l' || format == 'q') && item_bytes == 8)
        column->kind = INTEGERS;
    else if (format == 'O') {
        column->kind = TEXTS;
        column->known = PyMem_Calloc(KNOWN_TEXTS, sizeof(Known));
        if (column->known == NULL) {
            PyErr_NoMemory();
            return -1;
        }
    } else if (format == '?')
        column->kind = FLAGS;
    else {
        PyErr_SetString(PyExc_TypeError, "no column of integers, flags or texts");
        return -1;
    }
    if (column->values.len != n_rows * item_bytes) {
        PyErr_SetString(PyExc_ValueError, "an array of another size");
        return -1;
    }
    return 0;
}

static int
put_rows(Output *output, Column *columns, Py_ssize_t n_columns, Py_ssize_t n_rows, int64_t *starts)
{
    for (Py_ssize_t row = 0; row < n_rows; row++) {
        starts[row] = output->at - PyBytes_AS_STRING(output->bytes);
        *output->at++ = '[';
        for (Py_ssize_t i = 0; i < n_columns; i++) {
            if (put_cell(output, columns + i, row) < 0 || reserve(output, 2) < 0)
                return -1;
            *output->at++ = ',';
        }
        output->at[-1] = ']';
        *output->at++ = ',';
    }
    starts[n_rows] = output->at - PyBytes_AS_STRING(output->bytes);
    return 0;
}

static PyObject *
print_rows(PyObject *Py_UNUSED(module), PyObject *args)
{
    PyObject *given, *result = NULL;
    Py_ssize_t n_rows;
    if (!PyArg_ParseTuple(args, "O!n", &PyList_Type, &given, &n_rows))
        return NULL;
    Py_ssize_t n_columns = PyList_GET_SIZE(given);
    if (n_columns == 0 || n_rows < 0) {
        PyErr_SetString(PyExc_ValueError, "no columns");
        return NULL;
    }
    Column *columns = PyMem_Calloc((size_t)n_columns, sizeof(Column));
    if (columns == NULL)
        return PyErr_NoMemory();
    Py_ssize_t capacity = n_rows * (FIRST_CELL_BYTES * n_columns + 2) + 2 * SHORT_BYTES;
    Output output = {PyBytes_FromStringAndSize(NULL, capacity), NULL, NULL};
    PyObject *starts = PyBytes_FromStringAndSize(NULL, (n_rows + 1) * (Py_ssize_t)sizeof(int64_t));
    if (output.bytes == NULL || starts == NULL)
        goto done;
    output.at = PyBytes_AS_STRING(output.bytes);
    output.end = output.at + capacity;
    for (Py_ssize_t i = 0; i < n_columns; i++)
        if (open_column(PyList_GET_ITEM(given, i), columns + i, n_rows) < 0)
            goto done;
    if (put_rows(&output, columns, n_columns, n_rows, (int64_t *)PyBytes_AS_STRING(starts)) < 0)
        goto done;
    if (_PyBytes_Resize(&output.bytes, output.at - PyBytes_AS_STRING(output.bytes)) < 0)
        goto done;
    result = PyTuple_Pack(2, output.bytes, starts);
done:
    for (Py_ssize_t i = 0; i < n_columns; i++)
        close_column(columns + i);
    PyMem_Free(columns);
    Py_XDECREF(output.bytes);
    Py_XDECREF(starts);
    return result;
}

static PyMethodDef methods[] = {
    {"print_rows", print_rows, METH_VARARGS,
     "Return the rows of columns, each with a comma behind it, and int64[n + 1], where they start."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {
    .m_base = PyModuleDef_HEAD_INIT,
    .m_name = "_native",
    .m_size = 0,
    .m_methods = methods,
};

PyMODINIT_FUNC
PyInit__native(void)
{
    for (int i = 0; i < 100; i++) {
        pairs[2 * i] = (char)('0' + i / 10);
        pairs[2 * i + 1] = (char)('0' + i % 10);
    }
    for (int i = 0; i < 256; i++)
        is_special[i] = i < 0x20 || i == 0xe2 || strchr("\"\\<>&", i) != NULL;
    return PyModuleDef_Init(&module);
}
