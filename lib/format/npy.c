/* SPDX-License-Identifier: MIT
 *
 * .npy, versions 1 to 3: magic, length, a Python dict as text, then one array. Only the dict that
 * numpy writes is read, with its three keys in any order; nothing is evaluated. And .npz: named ones.
 */
#include "format/zip.h"

#include <string.h>

enum { MAX_HEADER = 10000, MAX_RANK = 8 }; /* numpy's own limit on untrusted headers */

typedef struct cursor {
    atmsae_context *ctx;
    const char *text;
    size_t at; /* the text ends in a NUL */
} cursor;

static atmsae_status bad(const cursor *c, const char *what)
{
    return ams_fail(c->ctx, ATMSAE_E_FORMAT, "header byte %zu: %s", c->at, what);
}

static char peek(cursor *c)
{
    c->at += strspn(c->text + c->at, " \t\r\n");
    return c->text[c->at];
}

static bool take(cursor *c, char wanted)
{
    if (peek(c) != wanted) return false;
    c->at++;
    return true;
}

static atmsae_status quoted(cursor *c, const char **text, size_t *length)
{
    char quote = peek(c);
    if (quote != '\'' && quote != '"') return bad(c, "expected a string");
    *text = c->text + ++c->at;
    *length = 0;
    for (char ch; (ch = (*text)[*length]) != quote; ++*length)
        if (ch < 0x20 || ch == 0x7f || ch == '\\') return bad(c, "strange string");
    c->at += *length + 1;
    return ATMSAE_OK;
}

static atmsae_status dimension(cursor *c, uint64_t *out)
{
    const char *p = c->text + c->at;
    size_t n = strspn(p, "0123456789");
    bool good = n > 0 && (n == 1 || *p != '0');
    *out = 0;
    for (size_t i = 0; i < n && good; i++)
        good = ams_mul(*out, 10, out) && !__builtin_add_overflow(*out, (uint64_t)(p[i] - '0'), out);
    if (!good) return bad(c, "a dimension must be a whole number from 0 to 2^64 - 1, in digits");
    c->at += n;
    return ATMSAE_OK;
}

/* (), (3,), (2, 3), (2, 3,) */
static atmsae_status shape(cursor *c, ams_tensor *tensor)
{
    if (!take(c, '(')) return bad(c, "expected a tuple");
    bool comma = true;
    for (uint64_t rank = 0;; rank++) {
        if (peek(c) == ')') {
            if (rank == 1 && !comma) return bad(c, "a tuple of one number needs a comma");
            tensor->rank = rank;
            c->at++;
            return ATMSAE_OK;
        }
        if (!comma) return bad(c, "expected ',' or ')'");
        uint64_t value;
        AMS_TRY(dimension(c, &value));
        if (rank == MAX_RANK) return ams_fail(c->ctx, ATMSAE_E_LIMIT, "more than %d dimensions", MAX_RANK);
        tensor->shape[rank] = value;
        comma = take(c, ',');
    }
}

static atmsae_status boolean(cursor *c, bool *out)
{
    (void)peek(c);
    size_t n = strspn(c->text + c->at, "TrueFals");
    const char *p = c->text + c->at;
    *out = n == 4 && memcmp(p, "True", 4) == 0;
    if (!*out && !(n == 5 && memcmp(p, "False", 5) == 0)) return bad(c, "expected True or False");
    c->at += n;
    return ATMSAE_OK;
}

/* numpy's name for an element type, to safetensors'. bfloat16 has none in numpy: it comes as V2. */
static const struct {
    char npy[4];
    const char *dtype;
} types[] = {
    {"<f2", "F16"}, {"<f4", "F32"}, {"<f8", "F64"}, {"|V2", "U16"}, {"<V2", "U16"}, {"<u2", "U16"}, {"|b1", "BOOL"},
    {"|u1", "U8"},  {"|i1", "I8"},  {"<i2", "I16"}, {"<i4", "I32"}, {"<i8", "I64"}, {"<u4", "U32"}, {"<u8", "U64"},
    {"<c8", "C64"},
};

static const ams_dtype *find_type(const char *text, size_t length)
{
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (length == 3 && memcmp(types[i].npy, text, 3) == 0) return ams_dtype_find(types[i].dtype, strlen(types[i].dtype));
    return NULL;
}

static atmsae_status dict(cursor *c, ams_tensor *tensor)
{
    static const char *const keys[] = {"descr", "fortran_order", "shape"};
    const char *text, *descr = "";
    size_t length, descr_length = 0;
    unsigned seen = 0;
    bool fortran = false;
    if (!take(c, '{')) return bad(c, "expected '{'");
    while (!take(c, '}')) {
        AMS_TRY(quoted(c, &text, &length));
        unsigned which = 0;
        while (which < 3 && !(strlen(keys[which]) == length && memcmp(keys[which], text, length) == 0))
            which++;
        if (which == 3 || seen >> which & 1) return bad(c, which == 3 ? "unknown key" : "duplicate key");
        seen |= 1u << which;
        if (!take(c, ':')) return bad(c, "expected ':'");
        if (which == 0 && peek(c) == '[')
            return ams_fail(c->ctx, ATMSAE_E_UNSUPPORTED, "an array of records; save a copy with NumPy: numpy.save(\"copy.npy\", "
                            "numpy.lib.recfunctions.structured_to_unstructured(numpy.load(FILE)))");
        AMS_TRY(which == 0 ? quoted(c, &descr, &descr_length) : which == 1 ? boolean(c, &fortran) : shape(c, tensor));
        if (!take(c, ',') && peek(c) != '}') return bad(c, "expected ',' or '}'");
    }
    if (peek(c) != '\0') return bad(c, "something follows the dict");
    if (seen != 7) return bad(c, "descr, fortran_order and shape are all needed");
    tensor->dtype = find_type(descr, descr_length);
    if (!tensor->dtype)
        return ams_fail(c->ctx, ATMSAE_E_UNSUPPORTED, "element type '%.*s': little-endian numbers are read; save a copy with NumPy: "
                        "numpy.save(\"copy.npy\", numpy.load(FILE).astype(\"<f4\"))", (int)ams_min(descr_length, 40), descr);
    if (fortran && tensor->rank > 2)
        return ams_fail(c->ctx, ATMSAE_E_UNSUPPORTED, "fortran_order with %llu dimensions; save a copy with NumPy: "
                        "numpy.save(\"copy.npy\", numpy.ascontiguousarray(numpy.load(FILE)))", (unsigned long long)tensor->rank);
    tensor->column_major = fortran && tensor->rank == 2; /* with fewer both orders are one */
    return ATMSAE_OK;
}

/* The array of `size` bytes at byte `at` of the file. */
static atmsae_status read_array(const atmsae_tensors *t, uint64_t at, uint64_t size, ams_tensor *tensor)
{
    unsigned char fixed[12] = {0};
    uint64_t got = ams_min(size, sizeof fixed);
    AMS_TRY(ams_pread(t->ctx, t->path, t->fd, fixed, got, at));
    if (memcmp(fixed, "\x93NUMPY", (size_t)ams_min(got, 6)) != 0) return ams_fail(t->ctx, ATMSAE_E_FORMAT, "not a .npy file");
    bool wide = fixed[6] != 1; /* the length takes 4 bytes from version 2 on */
    uint64_t start = wide ? 12 : 10;
    if (got >= 8 && (fixed[6] < 1 || fixed[6] > 3 || fixed[7] != 0))
        return ams_fail(t->ctx, ATMSAE_E_FORMAT, ".npy version %d.%d; 1.0 to 3.0 are read", fixed[6], fixed[7]);
    uint64_t length = (uint64_t)fixed[8] | (uint64_t)fixed[9] << 8;
    if (wide) length |= (uint64_t)fixed[10] << 16 | (uint64_t)fixed[11] << 24;
    if (got >= start && length > MAX_HEADER)
        return ams_fail(t->ctx, ATMSAE_E_FORMAT, "a header of %llu bytes, at most %d are read", (unsigned long long)length, MAX_HEADER);
    if (got < start || length > size - start)
        return ams_fail(t->ctx, ATMSAE_E_TRUNCATED, "%llu bytes: the header is not all there", (unsigned long long)size);

    char *text = ams_alloc(t->ctx, length + 1, 1);
    if (!text) return ams_nomem(t->ctx, t->path);
    cursor c = {t->ctx, text, 0};
    atmsae_status status = ams_pread(t->ctx, t->path, t->fd, text, length, at + start);
    text[length] = '\0';
    if (status == ATMSAE_OK && strlen(text) != length) status = ams_fail(t->ctx, ATMSAE_E_FORMAT, "a NUL in the header");
    if (status == ATMSAE_OK) status = dict(&c, tensor);
    ams_free(t->ctx, text);
    AMS_TRY(status);
    AMS_TRY(ams_tensor_size(t->ctx, tensor));
    tensor->at = at + start + length;
    uint64_t left = size - start - length;
    if (tensor->bytes == left) return ATMSAE_OK;
    return ams_fail(t->ctx, tensor->bytes > left ? ATMSAE_E_TRUNCATED : ATMSAE_E_FORMAT, "%llu bytes of data, its shape needs %llu",
                    (unsigned long long)left, (unsigned long long)tensor->bytes);
}

static atmsae_status read_npy(atmsae_tensors *t)
{
    t->items = ams_calloc(t->ctx, 1, sizeof *t->items);
    if (!t->items) return ams_nomem(t->ctx, t->path);
    t->items[0].name = "";
    AMS_TRY(read_array(t, 0, t->size, &t->items[0]));
    t->count = 1;
    return ATMSAE_OK;
}

atmsae_status ams_npy_header(atmsae_tensors *t)
{
    atmsae_status status = read_npy(t);
    return status == ATMSAE_OK || status == ATMSAE_E_IO ? status : ams_fail_in(t->ctx, status, t->path);
}

/* ---- .npz: a ZIP of them, NAME.npy each ------------------------------------------------------------ */

static atmsae_status read_npz(atmsae_tensors *t, const ams_zip *zip)
{
    t->items = ams_calloc(t->ctx, zip->count, sizeof *t->items);
    t->spans = ams_calloc(t->ctx, zip->count, sizeof *t->spans);
    if (!t->items || !t->spans) return ams_nomem(t->ctx, t->path);
    for (; t->count < zip->count; t->count++) {
        const ams_zip_entry *entry = &zip->entries[t->count];
        ams_tensor *tensor = &t->items[t->count];
        uint64_t length = entry->name_length;
        if (length < 4 || strcmp(entry->name + length - 4, ".npy") != 0)
            return ams_fail(t->ctx, ATMSAE_E_FORMAT, "entry \"%.200s\" is no array: its name does not end in .npy", entry->name);
        char *name = zip->directory + (entry->name - zip->directory); /* its own memory, writable */
        name[length - 4] = '\0';
        tensor->name = name;
        tensor->name_length = (size_t)length - 4;
        t->spans[t->n_spans++] = (ams_span){entry->at, entry->bytes, entry->crc};
        atmsae_status status = read_array(t, entry->at, entry->bytes, tensor);
        if (status < 0) return status == ATMSAE_E_IO ? status : ams_fail_in(t->ctx, status, tensor->name);
    }
    return ATMSAE_OK;
}

atmsae_status ams_npz_header(atmsae_tensors *t)
{
    ams_zip zip;
    atmsae_status status = ams_zip_open(t, &zip);
    if (status == ATMSAE_OK) {
        status = read_npz(t, &zip);
        t->header = zip.directory; /* the names are in it */
        zip.directory = NULL;
        ams_zip_close(t->ctx, &zip);
    }
    return status == ATMSAE_OK || status == ATMSAE_E_IO ? status : ams_fail_in(t->ctx, status, t->path);
}
