/* SPDX-License-Identifier: MIT
 *
 * .pt: what torch.save makes of a dict of tensors. A ZIP with ROOT/data.pkl, a pickle that describes the
 * dict, and ROOT/data/KEY, the elements of one storage each. A pickle is a program; this reader runs it on
 * values that cannot do anything, and knows only the instructions and the names that such a dict takes.
 * All else is refused by name, so nothing of a file is ever executed.
 *
 * Memory follows the file's size: an instruction makes one value at most, and one that copies (BINGET)
 * takes two bytes of the pickle.
 */
#include "format/zip.h"

#include <string.h>

enum { MAX_PICKLE = 1 << 22, MAX_TENSORS = 1 << 12 }; /* lists are searched from end to end */

/* ---- values ------------------------------------------------------------------------------------- */

typedef enum kind { MARK, NONE, BOOL, INT, TEXT, GLOBAL, TUPLE, DICT, STORAGE, TENSOR } kind;
static const char *const kind_names[] = {"a mark",  "None",   "a bool", "a number",  "a text",
                                         "a class", "a tuple", "a dict", "a storage", "a tensor"};

typedef struct value {
    kind kind;
    uint32_t n;         /* TEXT: bytes; TUPLE: elements; GLOBAL: its place in the table below */
    union {
        int64_t number; /* INT, BOOL */
        char *text;     /* TEXT: NUL behind it */
        uint64_t first; /* TUPLE: its elements in `elements`; DICT: its number; STORAGE, TENSOR: in their lists */
    };
} value;

typedef enum role { ORDERED_DICT, REBUILD_TENSOR, REBUILD_PARAMETER, STORAGE_CLASS } role;
static const struct global {
    const char *module, *name;
    role role;
    const char *dtype; /* STORAGE_CLASS */
} globals[] = {
    {"collections", "OrderedDict", ORDERED_DICT, NULL},
    {"torch._utils", "_rebuild_tensor_v2", REBUILD_TENSOR, NULL},
    {"torch._utils", "_rebuild_parameter", REBUILD_PARAMETER, NULL},
    {"torch", "FloatStorage", STORAGE_CLASS, "F32"},
    {"torch", "DoubleStorage", STORAGE_CLASS, "F64"},
    {"torch", "HalfStorage", STORAGE_CLASS, "F16"},
    {"torch", "BFloat16Storage", STORAGE_CLASS, "BF16"},
    {"torch", "LongStorage", STORAGE_CLASS, "I64"},
    {"torch", "IntStorage", STORAGE_CLASS, "I32"},
    {"torch", "ShortStorage", STORAGE_CLASS, "I16"},
    {"torch", "CharStorage", STORAGE_CLASS, "I8"},
    {"torch", "ByteStorage", STORAGE_CLASS, "U8"},
    {"torch", "BoolStorage", STORAGE_CLASS, "BOOL"},
};

typedef struct storage {
    const ams_dtype *dtype;
    uint64_t count, at;
} storage;

/* A tensor under a key of a dict. */
typedef struct pair {
    uint64_t dict;
    value key;
    uint64_t tensor;
} pair;

typedef struct machine {
    atmsae_tensors *t;
    const ams_zip *zip;
    char root[128]; /* "NAME/", the folder of all entries */
    size_t root_length;
    char *text;
    uint64_t length, at; /* of the pickle */
    value *stack, *memo, *elements;
    uint64_t depth, n_memo, n_elements, stack_room, memo_room, elements_room, n_dicts;
    storage *storages;
    ams_tensor *tensors;
    pair *pairs;
    uint64_t n_storages, n_tensors, n_pairs, storages_room, tensors_room, pairs_room;
} machine;

static atmsae_status bad(const machine *m, const char *what)
{
    return ams_fail(m->t->ctx, ATMSAE_E_FORMAT, "data.pkl byte %llu: %s", (unsigned long long)m->at, what);
}

static atmsae_status too_many(const machine *m, const char *what)
{
    return ams_fail(m->t->ctx, ATMSAE_E_LIMIT, "more than %d %s", MAX_TENSORS, what);
}

static atmsae_status push(machine *m, value v)
{
    AMS_TRY(ams_grow(m->t->ctx, &m->stack, &m->stack_room, m->depth + 1, m->depth, sizeof v));
    m->stack[m->depth++] = v;
    return ATMSAE_OK;
}

static atmsae_status push_kind(machine *m, kind k, uint32_t n, int64_t number)
{
    return push(m, (value){.kind = k, .n = n, .number = number});
}

static atmsae_status pop(machine *m, value *v)
{
    if (m->depth == 0) return bad(m, "the stack is empty");
    *v = m->stack[--m->depth];
    return ATMSAE_OK;
}

static atmsae_status pop_kind(machine *m, kind wanted, value *v)
{
    AMS_TRY(pop(m, v));
    if (v->kind == wanted) return ATMSAE_OK;
    return ams_fail(m->t->ctx, ATMSAE_E_FORMAT, "data.pkl byte %llu: %s where %s is needed", (unsigned long long)m->at,
                    kind_names[v->kind], kind_names[wanted]);
}

/* Number of values above the last mark, which goes. */
static atmsae_status above_mark(machine *m, uint64_t *n)
{
    for (*n = 0; *n < m->depth; ++*n)
        if (m->stack[m->depth - 1 - *n].kind == MARK) return ATMSAE_OK;
    return bad(m, "there is no mark");
}

static atmsae_status push_tuple(machine *m, uint64_t n, bool marked)
{
    if (n > m->depth) return bad(m, "the stack is empty");
    AMS_TRY(ams_grow(m->t->ctx, &m->elements, &m->elements_room, m->n_elements + n, m->n_elements, sizeof *m->elements));
    for (uint64_t i = 0; i < n; i++) {
        m->elements[m->n_elements + i] = m->stack[m->depth - n + i];
        if (m->elements[m->n_elements + i].kind == MARK) return bad(m, "a mark inside a tuple");
    }
    value tuple = {.kind = TUPLE, .n = (uint32_t)n, .first = m->n_elements};
    m->n_elements += n;
    m->depth -= n + marked;
    return push(m, tuple);
}

/* ---- what the calls mean ---------------------------------------------------------------------------- */

/* ("storage", class, key, device, count) */
static atmsae_status make_storage(machine *m)
{
    atmsae_context *ctx = m->t->ctx;
    value id = {0};
    AMS_TRY(pop_kind(m, TUPLE, &id));
    if (id.n != 5) return bad(m, "a reference that is no storage");
    const value *e = m->elements + id.first;
    bool good = e[0].kind == TEXT && strcmp(e[0].text, "storage") == 0 && e[1].kind == GLOBAL &&
                globals[e[1].n].role == STORAGE_CLASS && e[2].kind == TEXT && e[3].kind == TEXT && e[4].kind == INT && e[4].number >= 0;
    if (!good) return bad(m, "a reference that is no storage");
    char name[512];
    if (m->root_length + strlen("data/") + e[2].n >= sizeof name) return bad(m, "a storage with a long name");
    ams_format(name, sizeof name, "%sdata/%s", m->root, e[2].text);
    const ams_zip_entry *entry = ams_zip_find(m->zip, name);
    if (!entry) return ams_fail(ctx, ATMSAE_E_FORMAT, "data.pkl byte %llu: no entry \"%s\"", (unsigned long long)m->at, name);
    storage s = {.dtype = ams_dtype_find(globals[e[1].n].dtype, strlen(globals[e[1].n].dtype)), .count = (uint64_t)e[4].number, .at = entry->at};
    uint64_t bytes;
    if (!ams_mul(s.count, s.dtype->bits / 8, &bytes) || bytes != entry->bytes)
        return ams_fail(ctx, ATMSAE_E_FORMAT, "data.pkl byte %llu: entry \"%s\" has %llu bytes, not %llu elements of %s",
                        (unsigned long long)m->at, name, (unsigned long long)entry->bytes, (unsigned long long)s.count, s.dtype->name);
    if (m->n_storages == MAX_TENSORS) return too_many(m, "storages");
    AMS_TRY(ams_grow(ctx, &m->storages, &m->storages_room, m->n_storages + 1, m->n_storages, sizeof s));
    m->storages[m->n_storages] = s;
    return push(m, (value){.kind = STORAGE, .first = m->n_storages++});
}

/* A tuple of sizes or strides. */
static bool numbers(const machine *m, const value *tuple, uint64_t out[8])
{
    if (tuple->kind != TUPLE || tuple->n > 8) return false;
    for (uint32_t i = 0; i < tuple->n; i++) {
        const value *e = m->elements + tuple->first + i;
        if (e->kind != INT || e->number < 0) return false;
        out[i] = (uint64_t)e->number;
    }
    return true;
}

/* Are the elements row after row? Strides of dimensions of 1 mean nothing. */
static bool contiguous(const ams_tensor *tensor, const uint64_t *stride)
{
    uint64_t expected = 1;
    for (uint64_t i = tensor->rank; i-- > 0;) {
        if (tensor->shape[i] != 1 && stride[i] != expected) return false;
        expected *= tensor->shape[i]; /* no overflow: ams_tensor_size was there */
    }
    return true;
}

/* (storage, offset, sizes, strides, requires_grad, hooks) */
static atmsae_status make_tensor(machine *m, const value *arguments)
{
    static const char *const wrong = "_rebuild_tensor_v2 has other arguments than storage, offset, sizes, strides";
    atmsae_context *ctx = m->t->ctx;
    uint64_t stride[8] = {0};
    ams_tensor tensor = {.name = "a tensor"};
    if (arguments->n < 6 || arguments->n > 7) return bad(m, wrong);
    const value *e = m->elements + arguments->first;
    if (e[0].kind != STORAGE || e[1].kind != INT || e[1].number < 0 || !numbers(m, &e[2], tensor.shape) ||
        !numbers(m, &e[3], stride) || e[2].n != e[3].n)
        return bad(m, wrong);
    const storage *s = &m->storages[e[0].first];
    tensor.dtype = s->dtype;
    tensor.rank = e[2].n;
    AMS_TRY(ams_tensor_size(ctx, &tensor));
    if (tensor.count > 0 && !contiguous(&tensor, stride)) {
        tensor.column_major = tensor.rank == 2 && stride[0] == 1 && stride[1] == tensor.shape[0];
        if (!tensor.column_major)
            return ams_fail(ctx, ATMSAE_E_UNSUPPORTED, "data.pkl byte %llu: a tensor that is neither contiguous nor the transpose of one "
                            "that is; save .contiguous()", (unsigned long long)m->at);
    }
    uint64_t offset = (uint64_t)e[1].number;
    if (offset > s->count || tensor.count > s->count - offset)
        return ams_fail(ctx, ATMSAE_E_FORMAT, "data.pkl byte %llu: a tensor of %llu elements at %llu of a storage of %llu",
                        (unsigned long long)m->at, (unsigned long long)tensor.count, (unsigned long long)offset, (unsigned long long)s->count);
    tensor.at = s->at + offset * (s->dtype->bits / 8);
    if (m->n_tensors == MAX_TENSORS) return too_many(m, "tensors");
    AMS_TRY(ams_grow(ctx, &m->tensors, &m->tensors_room, m->n_tensors + 1, m->n_tensors, sizeof tensor));
    m->tensors[m->n_tensors] = tensor;
    return push(m, (value){.kind = TENSOR, .first = m->n_tensors++});
}

static atmsae_status call(machine *m)
{
    value function = {0}, arguments = {0};
    AMS_TRY(pop_kind(m, TUPLE, &arguments));
    AMS_TRY(pop_kind(m, GLOBAL, &function));
    switch (globals[function.n].role) {
    case ORDERED_DICT:
        if (arguments.n > 0) return bad(m, "an OrderedDict that is made with arguments");
        return push_kind(m, DICT, 0, (int64_t)m->n_dicts++);
    case REBUILD_TENSOR:
        return make_tensor(m, &arguments);
    case REBUILD_PARAMETER: /* (tensor, requires_grad, hooks): the tensor */
        if (arguments.n == 3 && m->elements[arguments.first].kind == TENSOR) return push(m, m->elements[arguments.first]);
        return bad(m, "_rebuild_parameter without a tensor");
    default:
        return bad(m, "a storage class is called");
    }
}

/* dict[key] = v. Only tensors are kept. */
static atmsae_status set_item(machine *m, const value *dict, const value *key, const value *v)
{
    if (dict->kind != DICT) return bad(m, "an item is set of what is no dict");
    if (v->kind == MARK || key->kind == MARK) return bad(m, "a mark inside a dict");
    if (v->kind != TENSOR) return ATMSAE_OK;
    if (key->kind != TEXT) return bad(m, "a tensor whose key is no text");
    for (uint64_t i = 0; i < m->n_pairs; i++)
        if (m->pairs[i].dict == dict->first && m->pairs[i].key.n == key->n && memcmp(m->pairs[i].key.text, key->text, key->n) == 0)
            return ams_fail(m->t->ctx, ATMSAE_E_FORMAT, "data.pkl byte %llu: two tensors \"%.200s\"", (unsigned long long)m->at, key->text);
    if (m->n_pairs == MAX_TENSORS) return too_many(m, "tensors");
    AMS_TRY(ams_grow(m->t->ctx, &m->pairs, &m->pairs_room, m->n_pairs + 1, m->n_pairs, sizeof *m->pairs));
    m->pairs[m->n_pairs++] = (pair){dict->first, *key, v->first};
    return ATMSAE_OK;
}

static atmsae_status set_items(machine *m)
{
    uint64_t n = 0;
    AMS_TRY(above_mark(m, &n));
    if (n % 2 != 0 || m->depth < n + 2) return bad(m, "items are set without a dict or in odd number");
    const value *dict = &m->stack[m->depth - n - 2], *items = &m->stack[m->depth - n];
    for (uint64_t i = 0; i < n; i += 2)
        AMS_TRY(set_item(m, dict, &items[i], &items[i + 1]));
    m->depth -= n + 1;
    return ATMSAE_OK;
}

static atmsae_status set_one_item(machine *m)
{
    if (m->depth < 3) return bad(m, "an item is set without a dict");
    const value *v = &m->stack[m->depth - 3];
    AMS_TRY(set_item(m, &v[0], &v[1], &v[2]));
    m->depth -= 2;
    return ATMSAE_OK;
}

/* ---- instructions ------------------------------------------------------------------------------------ */

/* The next n bytes as a little-endian number. */
static atmsae_status operand(machine *m, unsigned n, uint64_t *out)
{
    *out = 0;
    if (m->length - m->at < n) return bad(m, "it ends inside an instruction");
    for (unsigned i = n; i-- > 0;)
        *out = *out << 8 | (unsigned char)m->text[m->at + i];
    m->at += n;
    return ATMSAE_OK;
}

static atmsae_status push_number(machine *m, unsigned n, bool is_signed)
{
    uint64_t word = 0;
    AMS_TRY(operand(m, n, &word));
    unsigned shift = n < 8 ? 64 - 8 * n : 0;
    return push_kind(m, INT, 0, n == 0 ? 0 : is_signed ? (int64_t)(word << shift) >> shift : (int64_t)word);
}

static atmsae_status push_long(machine *m)
{
    uint64_t n = 0;
    AMS_TRY(operand(m, 1, &n));
    if (n > 8) return bad(m, "a number of more than 64 bits");
    return push_number(m, (unsigned)n, true);
}

/* The text moves onto its own length, so that a NUL fits behind it. */
static atmsae_status push_text(machine *m)
{
    uint64_t n = 0;
    AMS_TRY(operand(m, 4, &n));
    if (n > m->length - m->at) return bad(m, "it ends inside a text");
    char *text = m->text + m->at - 1;
    memmove(text, text + 1, n);
    text[n] = '\0';
    m->at += n;
    for (uint64_t i = 0; i < n; i++)
        if (text[i] < 0x20 || text[i] > 0x7e) return bad(m, "a text that is not printable ASCII");
    return push(m, (value){.kind = TEXT, .n = (uint32_t)n, .text = text});
}

/* "module\nname\n" */
static atmsae_status push_global(machine *m)
{
    char *parts[2];
    uint64_t start = m->at;
    for (int i = 0; i < 2; i++) {
        parts[i] = m->text + m->at;
        char *end = memchr(parts[i], '\n', (size_t)(m->length - m->at));
        if (!end) return bad(m, "it ends inside a name");
        *end = '\0';
        for (const char *p = parts[i]; *p; p++)
            if (*p < 0x20 || *p > 0x7e) return bad(m, "a name that is not printable ASCII");
        m->at = (uint64_t)(end - m->text) + 1;
    }
    for (uint32_t i = 0; i < sizeof globals / sizeof *globals; i++)
        if (strcmp(globals[i].module, parts[0]) == 0 && strcmp(globals[i].name, parts[1]) == 0) return push_kind(m, GLOBAL, i, 0);
    return ams_fail(m->t->ctx, ATMSAE_E_UNSUPPORTED, "data.pkl byte %llu: it asks for %.80s.%.80s; only dicts of plain tensors are read "
                    "(nothing was executed)", (unsigned long long)start, parts[0], parts[1]);
}

static atmsae_status put_memo(machine *m, unsigned operand_size)
{
    uint64_t place = 0;
    AMS_TRY(operand(m, operand_size, &place));
    if (place != m->n_memo || m->depth == 0) return bad(m, "memo entries out of order");
    AMS_TRY(ams_grow(m->t->ctx, &m->memo, &m->memo_room, place + 1, place, sizeof *m->memo));
    m->memo[m->n_memo++] = m->stack[m->depth - 1];
    return ATMSAE_OK;
}

static atmsae_status get_memo(machine *m, unsigned operand_size)
{
    uint64_t place = 0;
    AMS_TRY(operand(m, operand_size, &place));
    if (place >= m->n_memo) return bad(m, "a memo entry that was not made");
    return push(m, m->memo[place]);
}

static atmsae_status step(machine *m, unsigned char instruction)
{
    uint64_t n = 0;
    value state = {0};
    switch (instruction) {
    case 0x80: /* PROTO */
        AMS_TRY(operand(m, 1, &n));
        if (n == 2) return ATMSAE_OK;
        return ams_fail(m->t->ctx, ATMSAE_E_UNSUPPORTED, "pickle protocol %llu; torch.save writes 2, which is read", (unsigned long long)n);
    case 'c': return push_global(m);
    case '(': return push_kind(m, MARK, 0, 0);
    case 'N': return push_kind(m, NONE, 0, 0);
    case 0x88: return push_kind(m, BOOL, 0, 1);
    case 0x89: return push_kind(m, BOOL, 0, 0);
    case 'K': return push_number(m, 1, false);
    case 'M': return push_number(m, 2, false);
    case 'J': return push_number(m, 4, true);
    case 0x8a: return push_long(m);
    case 'X': return push_text(m);
    case ')': return push_tuple(m, 0, false);
    case 0x85: return push_tuple(m, 1, false);
    case 0x86: return push_tuple(m, 2, false);
    case 0x87: return push_tuple(m, 3, false);
    case 't':
        AMS_TRY(above_mark(m, &n));
        return push_tuple(m, n, true);
    case '}': return push_kind(m, DICT, 0, (int64_t)m->n_dicts++);
    case 's': return set_one_item(m);
    case 'u': return set_items(m);
    case 'q': return put_memo(m, 1);
    case 'r': return put_memo(m, 4);
    case 'h': return get_memo(m, 1);
    case 'j': return get_memo(m, 4);
    case 'Q': return make_storage(m);
    case 'R': return call(m);
    case 'b': /* BUILD: attributes of a state_dict, which are versions of modules */
        AMS_TRY(pop_kind(m, DICT, &state));
        if (m->depth == 0 || m->stack[m->depth - 1].kind != DICT) return bad(m, "attributes of what is no dict");
        return ATMSAE_OK;
    default:
        return ams_fail(m->t->ctx, ATMSAE_E_UNSUPPORTED, "data.pkl byte %llu: instruction 0x%02x; only dicts of plain tensors are read "
                        "(nothing was executed)", (unsigned long long)m->at - 1, instruction);
    }
}

/* Runs it to its end and takes the tensors of the dict that is left. */
static atmsae_status run(machine *m)
{
    for (;;) {
        uint64_t instruction = 0;
        AMS_TRY(operand(m, 1, &instruction));
        if (instruction == '.') break;
        AMS_TRY(step(m, (unsigned char)instruction));
    }
    value top = {0};
    AMS_TRY(pop_kind(m, DICT, &top));
    if (m->depth != 0 || m->at != m->length) return bad(m, "something is left over");
    atmsae_tensors *t = m->t;
    t->items = ams_alloc(t->ctx, m->n_pairs, sizeof *t->items);
    if (!t->items) return ams_nomem(t->ctx, t->path);
    for (uint64_t i = 0; i < m->n_pairs; i++) {
        if (m->pairs[i].dict != top.first) continue;
        ams_tensor *tensor = &t->items[t->count++];
        *tensor = m->tensors[m->pairs[i].tensor];
        tensor->name = m->pairs[i].key.text;
        tensor->name_length = m->pairs[i].key.n;
    }
    return ATMSAE_OK;
}

/* ---- the archive --------------------------------------------------------------------------------------- */

/* ROOT/byteorder is "little" or, before PyTorch 2.1, missing. */
static atmsae_status check_byteorder(const machine *m)
{
    char name[256], order[8] = "";
    ams_format(name, sizeof name, "%sbyteorder", m->root);
    const ams_zip_entry *entry = ams_zip_find(m->zip, name);
    if (!entry) return ATMSAE_OK;
    if (entry->bytes < sizeof order) AMS_TRY(ams_pread(m->t->ctx, m->t->path, m->t->fd, order, entry->bytes, entry->at));
    if (strcmp(order, "little") == 0) return ATMSAE_OK;
    return ams_fail(m->t->ctx, ATMSAE_E_UNSUPPORTED, "entry \"%s\" is not \"little\"", name);
}

static atmsae_status read_archive(machine *m)
{
    atmsae_context *ctx = m->t->ctx;
    static const char ending[] = "/data.pkl";
    const ams_zip_entry *pickle = NULL;
    for (uint64_t i = 0; i < m->zip->count; i++) {
        const ams_zip_entry *entry = &m->zip->entries[i];
        const char *slash = strchr(entry->name, '/');
        if (slash && strcmp(slash, ending) == 0) pickle = entry;
    }
    if (!pickle) return ams_fail(ctx, ATMSAE_E_FORMAT, "a ZIP without ROOT/data.pkl: not made by torch.save");
    if (pickle->bytes > MAX_PICKLE)
        return ams_fail(ctx, ATMSAE_E_LIMIT, "data.pkl has %llu bytes, at most %d are read", (unsigned long long)pickle->bytes, MAX_PICKLE);
    m->root_length = pickle->name_length - (sizeof ending - 2); /* with its slash */
    if (m->root_length >= sizeof m->root) return ams_fail(ctx, ATMSAE_E_LIMIT, "a ZIP whose root has a long name");
    memcpy(m->root, pickle->name, m->root_length);
    m->root[m->root_length] = '\0';
    AMS_TRY(check_byteorder(m));
    m->length = pickle->bytes;
    m->t->header = m->text = ams_alloc(ctx, m->length, 1);
    if (!m->text) return ams_nomem(ctx, m->t->path);
    AMS_TRY(ams_pread(ctx, m->t->path, m->t->fd, m->text, m->length, pickle->at));
    if (ams_crc32(0, m->text, (size_t)m->length) != pickle->crc)
        return ams_fail(ctx, ATMSAE_E_FORMAT, "data.pkl was damaged: its CRC-32 is not the archive's");
    AMS_TRY(run(m));
    m->t->spans = ams_alloc(ctx, m->zip->count, sizeof *m->t->spans);
    if (!m->t->spans) return ams_nomem(ctx, m->t->path);
    for (; m->t->n_spans < m->zip->count; m->t->n_spans++) {
        const ams_zip_entry *entry = &m->zip->entries[m->t->n_spans];
        m->t->spans[m->t->n_spans] = (ams_span){entry->at, entry->bytes, entry->crc};
    }
    return ATMSAE_OK;
}

static atmsae_status read_file(atmsae_tensors *t)
{
    char magic[4] = "";
    if (t->size >= sizeof magic) AMS_TRY(ams_pread(t->ctx, t->path, t->fd, magic, sizeof magic, 0));
    if (memcmp(magic, "\x80\x02\x8a\x0a", 4) == 0)
        return ams_fail(t->ctx, ATMSAE_E_UNSUPPORTED, "the format of PyTorch before 1.6; load it and save it again");
    ams_zip zip;
    AMS_TRY(ams_zip_open(t, &zip));
    machine m = {.t = t, .zip = &zip};
    atmsae_status status = read_archive(&m);
    void *const all[] = {m.stack, m.memo, m.elements, m.storages, m.tensors, m.pairs};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        ams_free(t->ctx, all[i]);
    ams_zip_close(t->ctx, &zip);
    return status;
}

atmsae_status ams_torch_header(atmsae_tensors *t)
{
    atmsae_status status = read_file(t);
    return status == ATMSAE_OK || status == ATMSAE_E_IO ? status : ams_fail_in(t->ctx, status, t->path);
}
