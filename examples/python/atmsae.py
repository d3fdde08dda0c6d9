# SPDX-License-Identifier: MIT
"""libatmsae for Python: ctypes, one file, nothing to build. The header atmsae.h is the manual.

Rows go in as 2-D NumPy arrays, torch CPU tensors (f32, f16, from torch also bf16) or what np.asarray
makes an array of, such as an h5py dataset; rows may lie any distance apart. Arrays and tensors are not
copied; what is handed over lives as long as it is used. Arrays that come out are read-only NumPy arrays
on the library's memory, which they keep, also of a handle that was closed; those of a model, a tracker
and a masker show what these hold now, so `.copy()` what must stay. tensor() makes a torch tensor of one.
Settings are the header's fields as keywords; enum fields also take names: activation="batchtopk".
Failures raise Error, and what a callback raised comes out of the call. Calls release the GIL.

The library is the file named by ATMSAE_LIBRARY, else the one the loader finds, else pkg-config's.
"""
import ctypes as C
import operator
import os
import subprocess
import threading
import weakref

import numpy as np


def _load():
    names = [os.environ.get("ATMSAE_LIBRARY") or "libatmsae.so.0.1"]
    try:
        flags = subprocess.run(["pkg-config", "--libs-only-L", "atmsae"], capture_output=True, text=True).stdout
        names += [flag[2:] + "/libatmsae.so.0.1" for flag in flags.split()]
    except OSError:
        pass
    errors = []
    for name in names:
        try:
            return C.CDLL(name)
        except OSError as error:
            errors.append(str(error))
    raise OSError(f"cannot load libatmsae ({'; '.join(errors)}); set ATMSAE_LIBRARY to its path")


_lib = _load()

# ---- structs: the header's fields after `size`; u u64, w u32, i i32, d double, s string, a array of u64.
# Not for callers to set: n the number of an array's elements, p pointer.

_STRUCTS = """
context_config w:threads i:log_level p:allocator,log,log_opaque i:precision,pad0_
model_config u:d_in,d_out,d_sae,seed i:activation,decoder_norm,input_norm,b_dec_init,transcoder,pad0_ d:k,sparsity_coef,target_l0,bandwidth,init_threshold,tanh_scale,pre_act_coef,decoder_init_norm,aux_coef u:aux_k n:n_prefixes a:prefixes i:uncentred,pad1_
batch n:n_rows p:x n:ld_x p:y n:ld_y p:row_weights i:x_type,y_type
codes_view u:n_rows,d_sae p:row_start,latent,value
save_options s:model_name,hook_name,format i:fold_decoder_norm w:layer p:latents,strengths n:n_latents s:hook_name_out
optimizer_config d:lr,beta1,beta2,eps,clip u:total_steps,warmup_steps,decay_steps i:freeze_masked,pad0_
tracker_config u:d_sae d:decay,weight_magnitude,weight_frequency,weight_contribution i:combine,observed_only u:dead_window
masker_config u:d_sae,seed i:kind,per_row d:c,r u:total_steps,warmup_steps d:cooldown_start,cooldown_end i:effect,pad0_ d:alpha
trainer_config p:model,optimizer,tracker,masker u:total_rows,batch_rows d:sparsity_warmup u:skip_bad_rows d:max_norm
step_stats u:step,rows d:loss,mse,sparsity,aux,fvu,l0 u:dead,masked d:mean_p,r,lr,grad_norm u:bad_rows d:sparsity_coef,masked_loss u:outlier_rows
source_config u:shuffle_rows,seed,epochs
mask u:d_sae p:masked,p u:seed,step i:effect,pad0_ d:alpha
latent_sums u:d_sae p:rows,magnitude,frequency,contribution
"""
_ENUMS = """
activation relu topk batchtopk jumprelu jumprelu_tanh gated
decoder_norm free unit
input_norm raw sqrt_d
b_dec_init zero mean median
combine arithmetic geometric
kind none atm paper uniform permuted
effect hard second_loss
precision f32 bf16
"""
_ENUMS = {field: {v: i + (field not in ("precision", "effect")) for i, v in enumerate(values)}
          for field, *values in map(str.split, _ENUMS.strip().splitlines())}  # fmt: skip
_TYPES = dict(u=C.c_uint64, w=C.c_uint32, i=C.c_int32, d=C.c_double, s=C.c_char_p, a=C.c_void_p, n=C.c_uint64, p=C.c_void_p)
_RANGES = dict(u=range(2**64), w=range(2**32), i=range(-(2**31), 2**31))


class _Base(C.Structure):
    def asdict(self):
        return {f: getattr(self, f) for f, letter in self.letters.items() if letter in "uwidn" and f[:3] != "pad"}

    def __repr__(self):
        return ", ".join(f"{f}={v:.5g}" if isinstance(v, float) else f"{f}={v}" for f, v in self.asdict().items())


structs = {}
for _name, *_groups in map(str.split, _STRUCTS.strip().splitlines()):
    _letters = {f: g[0] for g in _groups for f in g[2:].split(",")}
    _fields = [("size", C.c_size_t)] + [(f, _TYPES[letter]) for f, letter in _letters.items()]
    structs[_name] = type(_name, (_Base,), {"_fields_": _fields, "letters": _letters})


def _whole(value, letter, what):
    """A whole number that the C type holds; ctypes would cut it."""
    if operator.index(value) not in _RANGES[letter]:
        raise ValueError(f"{what} = {value}: must be {_RANGES[letter][0]} .. {_RANGES[letter][-1]}")
    return operator.index(value)


def _text(value):
    """A path or a name as C takes it: bytes up to the first 0."""
    value = os.fsencode(value)
    if b"\0" in value:
        raise ValueError(f"{value!r} contains a NUL byte")
    return value


def _struct(name, values=None):
    """A struct with the library's defaults, where it has any, and the given values."""
    s = structs[name](size=C.sizeof(structs[name]))
    if name.endswith(("config", "options", "batch")):
        getattr(_lib, f"atmsae_{name}_init")(C.byref(s), C.c_size_t(C.sizeof(s)))
    settings = {f: letter for f, letter in s.letters.items() if letter in "uwidsa" and f[:3] != "pad"}
    for field, value in (values or {}).items():
        letter = settings.get(field)
        if not letter:
            raise TypeError(f"no setting {field!r}; there are {', '.join(settings)}")
        if letter == "a":
            s.keep = (C.c_uint64 * len(value))(*(_whole(v, "u", field) for v in value))
            setattr(s, "n_" + field, len(s.keep))
            value = C.addressof(s.keep)
        elif letter == "s":
            value = None if value is None else _text(value)  # which the struct keeps
        elif letter != "d":
            if isinstance(value, str):
                if value.lower() not in _ENUMS.get(field, ()):
                    raise ValueError(f"{field}={value!r}: one of {', '.join(_ENUMS.get(field, ()))}")
                value = _ENUMS[field][value.lower()]
            value = _whole(value, letter, field)
        setattr(s, field, value)
    return s


# ---- functions: what does not return a status or nothing ----

_RESULTS = """
status_name b, copy_error u, model_view p, trainer_steps_done u, trainer_outlier_rows u, trainer_norm_limit d, trainer_model p, trainer_tracker p, trainer_masker p,
source_d u, source_d_target u, source_rows u, tracker_importance p, tracker_dead p, masker_mask p, masker_theta d, masker_rate d,
masker_mean_p d, masker_p p
"""
for _name, _result in map(str.split, _RESULTS.split(",")):
    getattr(_lib, "atmsae_" + _name).restype = C.c_char_p if _result == "b" else _TYPES[_result]


class Error(Exception):
    """A call failed. `status` is the code's name, the text is the library's."""


_raised = threading.local()  # .error: what a callback raised in the call that this thread is in


def _callback(kind, function):
    """A C callback. What the function raises would end in ctypes; _call raises it."""

    def run(*args):
        try:
            function(*args)
        except BaseException as error:
            _raised.__dict__.setdefault("error", error)  # the first

    return kind(run)


def _argument(a, function):
    """What ctypes passes: whole numbers in full width, it would pass an int; arrays as their address."""
    if isinstance(a, (int, np.integer)):
        return C.c_uint64(_whole(a, "u", function))
    if isinstance(a, np.ndarray):
        return C.c_void_p(a.ctypes.data)
    return a._as_parameter_ if isinstance(a, _Handle) else a


def _failure(handle, status):
    name, text, pointer = _lib.atmsae_status_name(status).decode(), C.create_string_buffer(1024), handle._pointer
    _lib.atmsae_copy_error(pointer and (pointer.context or pointer), text, C.c_size_t(len(text)))
    error = Error(f"{name}: {text.value.decode(errors='backslashreplace')}")
    error.status = name
    return error


def _call(handle, function, *args):
    """Calls; args and passed hold whatever the addresses belong to. The handle has the text of a failure."""
    passed = [_argument(a, function) for a in args]
    status = getattr(_lib, "atmsae_" + function)(*passed)
    if "error" in _raised.__dict__:
        raise _raised.__dict__.pop("error")
    if status < 0:
        raise _failure(handle, status)  # in no variable: that would be a cycle, and keep the arguments


# ---- arrays


def _array(x):
    """(NumPy array, its type) on the memory of x, or on a copy that nobody else holds: keep the array."""
    if hasattr(x, "data_ptr"):  # torch, whose storage cannot be resized any more once NumPy has it
        if str(x.dtype) == "torch.bfloat16":
            import torch

            return x.detach().view(torch.int16).numpy(), "bf16"
        x = x.detach().numpy()
    elif isinstance(x, (list, tuple, int, float)):
        raise TypeError("need an array or a tensor")
    a = np.asarray(x)
    return a, a.dtype.str


def _rows(x, d=None, what="rows"):
    """(array, distance of rows, type) of a 2-D array, with d columns where d is given."""
    a, kind = _array(x)
    kinds = {"<f4": 1, "<f2": 2, "bf16": 3}
    if a.ndim != 2 or a.shape[1] != (d or a.shape[1]) or kind not in kinds:
        raise ValueError(f"{what}: {kind} of shape {a.shape}, expected <f4, <f2 or bf16 of [n, {d or 'd'}]")
    n, d = a.shape
    ld = a.strides[0] // a.itemsize if n > 1 else d
    if (d > 1 and a.strides[1] != a.itemsize) or ld < d:
        raise ValueError(f"{what}: strides of {a.strides} bytes; elements of a row must be adjacent, rows must not overlap: "
                         "np.ascontiguousarray makes a copy of that kind")  # fmt: skip
    if not a.flags.aligned:
        raise ValueError(f"{what}: not aligned to {a.itemsize} bytes")
    return a, ld, kinds[kind]


def _vector(x, kind, shape, what):
    """An array of adjacent elements of exactly this type."""
    a, own = _array(x)
    if own != kind or a.shape != shape:
        raise ValueError(f"{what}: {own} of shape {a.shape}, expected {kind} of {shape}")
    if not a.flags.c_contiguous or not a.flags.aligned:
        raise ValueError(f"{what}: not contiguous, or not aligned to {a.itemsize} bytes")
    return a


class _Lent:
    """Gives NumPy library memory, and keeps its owner alive."""

    def __init__(self, address, shape, kind, owner, read_only=True, strides=None):
        self.owner = owner
        self.__array_interface__ = dict(data=(address, read_only), shape=shape, typestr=kind, strides=strides, version=3)


def _lend(address, shape, kind, pointer):
    if not address or 0 in shape:
        return np.zeros(shape, kind)
    lent = _Lent(address, shape, kind, pointer)
    pointer.lent.add(lent)
    return np.asarray(lent)


def tensor(array):
    """A torch tensor on the memory of a lent array. torch has no read-only tensors: do not write to it."""
    import torch

    if array.flags.writeable:  # of nothing that is lent
        return torch.from_numpy(array)
    base = array
    while isinstance(base, np.ndarray):
        base = base.base
    if not isinstance(base, _Lent):
        raise TypeError("a read-only array that this library did not lend")
    i = array.__array_interface__
    return torch.from_numpy(np.asarray(_Lent(i["data"][0], i["shape"], i["typestr"], array, False, i["strides"])))


def _batch(owner, x, y=None, weights=None):
    b = _struct("batch")
    x, b.ld_x, b.x_type = _rows(x, owner.d_in)
    b.x, b.n_rows = x.ctypes.data, len(x)
    if y is not None:
        y, b.ld_y, b.y_type = _rows(y, owner.d_out, "targets")
        b.y = y.ctypes.data
        if len(y) != len(x):
            raise ValueError(f"{len(x)} rows, but {len(y)} targets")
    if weights is not None:
        weights = _vector(weights, "<f4", (len(x),), "weights")
        b.row_weights = weights.ctypes.data
    b.keep = x, y, weights
    return C.byref(b)  # which refers to b


# ---- handles


class _Pointer(C.c_void_p):
    """A C handle. All that works on its memory refers to this: Python's handle until it is closed, calls,
    lent arrays, parts. When nothing does any more, the C handle is destroyed; at exit it may stay."""

    def __init__(self, address, context, keep, destroy=None):
        super().__init__(address)
        self.context, self.keep, self.lent = context, keep, weakref.WeakSet()
        if destroy:
            weakref.finalize(self, destroy, C.c_void_p(address)).atexit = False


def _expect(kind, handle):
    if not isinstance(handle, kind):
        raise TypeError(f"expected a {kind.__name__}, got {type(handle).__name__}")
    return handle


class _Handle:
    """Owns a handle or, given an owner, borrows one of it. Close it, use `with`, or let it go."""

    _pointer = _owner = None
    # What sizes of arrays depend on is not for assignment.
    d_in, d_out, d_sae = (property(operator.attrgetter(name)) for name in ("_d_in", "_d_out", "_d_sae"))

    def _take(self, pointer, context):
        self._pointer, self.context = pointer, context
        return self

    def _make(self, context, function, *args, keep=()):
        out, pointer = C.c_void_p(), _expect(Context, context)._pointer
        try:
            _call(context, function, *args, C.byref(out))
        finally:  # what was made is owned, whatever a callback raised
            if out.value:
                destroy = getattr(_lib, f"atmsae_{function.split('_')[0]}_destroy")
                pointer = _Pointer(out.value, pointer, list(keep), destroy)
        return self._take(pointer, context)

    @property
    def _as_parameter_(self):  # what ctypes passes
        pointer = self._pointer
        if not pointer or (self._owner and not self._owner._pointer):
            raise ValueError("this handle was closed")
        return pointer

    def close(self):
        """Frees the memory, once no call of another thread and no lent array uses it."""
        self._pointer = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def _latents(self, function):
        """A lent double for each latent."""
        pointer = self._as_parameter_
        return _lend(getattr(_lib, "atmsae_" + function)(pointer), (self.d_sae,), "<f8", pointer)


def _value(function):
    return property(lambda self: getattr(_lib, "atmsae_" + function)(self._as_parameter_))


class Context(_Handle):
    """threads=0: one for each CPU that the process may use. log: a function of (level, text); levels 1 error,
    2 warning, 3 info."""

    def __init__(self, threads=0, log=None, log_level=3, precision="f32"):
        config, keep = _struct("context_config", dict(threads=threads, log_level=log_level, precision=precision)), []
        if log:
            kind = C.CFUNCTYPE(None, C.c_void_p, C.c_int32, C.c_char_p)
            keep = [_callback(kind, lambda _, level, text: log(level, text.decode(errors="backslashreplace")))]
            config.log = C.cast(keep[0], C.c_void_p)
        self._make(self, "context_create", C.byref(config), keep=keep)

    def request_stop(self):
        _lib.atmsae_request_stop(self._as_parameter_)


class Model(_Handle):
    # name: (number, shape in terms of the configuration)
    _parameters = dict(
        W_enc=(1, ["d_sae", "d_in"]), b_enc=(2, ["d_sae"]), W_dec=(3, ["d_sae", "d_out"]), b_dec=(4, ["d_out"]),
        threshold=(5, ["d_sae"]), r_mag=(6, ["d_sae"]), b_mag=(7, ["d_sae"]),
        batch_threshold=(8, []), input_scale=(9, []), output_scale=(10, []),
    )  # fmt: skip

    def __init__(self, context, **config):
        self._make(context, "model_create", context, C.byref(_struct("model_config", config)))

    @classmethod
    def load(cls, context, path):
        """An SAE in any format that atmsae info knows."""
        return cls.__new__(cls)._make(context, "model_load", context, _text(path))

    def _take(self, *args):
        super()._take(*args)
        self.config = _struct("model_config")  # every default resolved
        _call(self, "model_get_config", self, C.byref(self.config))
        self._d_in, self._d_out, self._d_sae = self.config.d_in, self.config.d_out, self.config.d_sae
        return self

    def _parameter(self, name):
        number, shape = self._parameters[name]
        return number, tuple(getattr(self, s) for s in shape)

    def __getitem__(self, name):
        """A parameter, lent: model["W_dec"]."""
        number, shape = self._parameter(name)
        pointer = self._as_parameter_
        if not (address := _lib.atmsae_model_view(pointer, number, None)):
            raise KeyError(f"this model has no {name}")
        return _lend(address, shape, "<f4", pointer)

    def __setitem__(self, name, values):
        number, shape = self._parameter(name)
        values = _vector(np.asarray(values, np.float32) if shape == () else values, "<f4", shape, name)
        _call(self, "model_set", self, number, values, values.size)

    def encode(self, x, codes=None):
        """The rows' latents, in new codes or in those given."""
        codes = Codes(self.context) if codes is None else _expect(Codes, codes)
        batch = _batch(self, x)
        with codes._lock:
            if codes._as_parameter_.lent:  # arrays go on to show what they show: the codes get other memory
                codes._make(codes.context, "codes_create", codes.context)
            _call(self, "encode", self, batch, codes)
        return codes

    def decode(self, codes, out=None):
        """The reconstruction, f32 [n, d_out]; out: an array or a tensor to write it to."""
        with _expect(Codes, codes)._lock:
            n = codes.n_rows
            if out is None:
                out = np.empty((n, self.d_out), np.float32)
            if not isinstance(out, np.ndarray) and not hasattr(out, "data_ptr"):
                raise TypeError(f"out: a {type(out).__name__}, expected a NumPy array or a tensor")
            target, ld, kind = _rows(out, self.d_out, "out")
            if len(target) != n or kind != 1 or not target.flags.writeable:
                raise ValueError(f"out: must be f32 of {n} rows, and not read-only")
            _call(self, "decode", self, codes, target, ld)
        return out

    def prepare(self, x, y=None, weights=None):
        _call(self, "model_prepare", self, _batch(self, x, y, weights))

    def calibrate(self, x, weights=None):
        _call(self, "model_calibrate", self, _batch(self, x, weights=weights))

    def save(self, path, latents=(), strengths=None, **options):
        """A SAELens v6 folder, Gemma Scope's .npz or, of some latents, a control vector, .gguf."""
        options, n = _struct("save_options", options), len(latents)
        latents = _vector(np.array([_whole(i, "w", "latents") for i in latents], "<u4"), "<u4", (n,), "latents")
        options.latents, options.n_latents = latents.ctypes.data, n
        if strengths is not None:
            strengths = _vector(np.array(strengths, "<f4"), "<f4", (n,), "strengths")
            options.strengths = strengths.ctypes.data
        _call(self, "model_save", self, _text(path), C.byref(options))


class Codes(_Handle):
    """Sparse latents: row r has entries row_start[r] .. row_start[r+1]-1 of latent and value."""

    def __init__(self, context):
        self._lock = threading.RLock()  # between learning where the arrays are and keeping them, nobody fills them
        self._make(context, "codes_create", context)

    def _view(self):
        v = _struct("codes_view")
        _call(self, "codes_get", self, C.byref(v))
        return v

    def _arrays(self):
        with self._lock:
            v, pointer = self._view(), self._as_parameter_
            row_start = _lend(v.row_start, (v.n_rows + 1,), "<u8", pointer)
            n = int(row_start[-1])
            return row_start, _lend(v.latent, (n,), "<u4", pointer), _lend(v.value, (n,), "<f4", pointer), v.d_sae

    n_rows = property(lambda self: self._view().n_rows)
    row_start = property(lambda self: self._arrays()[0])
    latent = property(lambda self: self._arrays()[1])
    value = property(lambda self: self._arrays()[2])

    def dense(self):
        row_start, latent, value, d_sae = self._arrays()
        f = np.zeros((len(row_start) - 1, d_sae), np.float32)
        f[np.repeat(np.arange(len(f)), np.diff(row_start.astype(np.int64))), latent] = value
        return f


class Tracker(_Handle):
    """Importance of each latent, from sums that any training loop can make."""

    def __init__(self, context, d_sae, **config):
        config = _struct("tracker_config", dict(config, d_sae=d_sae))
        self._d_sae = config.d_sae
        self._make(context, "tracker_create", context, C.byref(config))

    def observe(self, rows, magnitude, frequency, contribution):
        """Four float64 arrays [d_sae], see atmsae_latent_sums."""
        sums = _struct("latent_sums", dict(d_sae=self.d_sae))
        keep = [_vector(a, "<f8", (self.d_sae,), "sums") for a in (rows, magnitude, frequency, contribution)]
        sums.rows, sums.magnitude, sums.frequency, sums.contribution = (a.ctypes.data for a in keep)
        _call(self, "tracker_observe", self, C.byref(sums))

    @property
    def importance(self):
        return self._latents("tracker_importance")

    @property
    def dead(self):
        n, pointer = C.c_uint64(), self._as_parameter_
        address = _lib.atmsae_tracker_dead(pointer, C.byref(n))
        return _lend(address, (n.value,), "<u4", pointer)


class Masker(_Handle):
    """Which latents are masked."""

    def __init__(self, context, d_sae, **config):
        config = _struct("masker_config", dict(config, d_sae=d_sae))
        self._d_sae = config.d_sae
        self._make(context, "masker_create", context, C.byref(config))

    def draw(self, step):
        """With per_row=0 the mask of a step, uint8 [d_sae], 1: masked; lent until the next draw. Otherwise None: rows are masked
        with the probabilities p."""
        pointer = self._as_parameter_
        _call(self, "masker_draw", pointer, step)
        mask = structs["mask"].from_address(_lib.atmsae_masker_mask(pointer))
        return _lend(mask.masked, (self.d_sae,), "|u1", pointer) if mask.masked else None

    def update(self, importance):
        _call(self, "masker_update", self, _vector(importance, "<f8", (self.d_sae,), "importance"), self.d_sae)

    @property
    def p(self):
        return self._latents("masker_p")

    def begin_cooldown(self, first_step, steps):
        _call(self, "masker_begin_cooldown", self, first_step, steps)

    theta, rate, mean_p = _value("masker_theta"), _value("masker_rate"), _value("masker_mean_p")


class _Sized:
    """An iterable with a length where there is one, which progress bars ask for."""

    def __init__(self, iterate, length):
        self._iterate, self._length = iterate, length

    def __iter__(self):
        return self._iterate()

    def __len__(self):
        return self._length()


class Trainer(_Handle):
    """model, optimizer, tracker, masker: dicts of settings; the rest are the trainer's own."""

    def __init__(self, context, model, optimizer=None, tracker=None, masker=None, **config):
        parts = dict(model=model, optimizer=optimizer, tracker=tracker, masker=masker)
        parts = {name: _struct(name + "_config", settings) for name, settings in parts.items()}
        config = _struct("trainer_config", config)
        for name, part in parts.items():
            setattr(config, name, C.addressof(part))
        self._make(context, "trainer_create", context, C.byref(config))

    @classmethod
    def load(cls, context, path, source=None):
        source = source and _expect(Source, source)
        return cls.__new__(cls)._make(context, "trainer_load", context, _text(path), source)

    def _take(self, *args):
        super()._take(*args)
        self._d_in, self._d_out, self._d_sae = (model := self.model).d_in, model.d_out, model.d_sae
        return self

    def _part(self, kind, function):
        part, pointer = kind.__new__(kind), self._as_parameter_
        part._owner, part._d_sae = self, getattr(self, "_d_sae", 0)
        address = getattr(_lib, "atmsae_trainer_" + function)(pointer)
        return part._take(_Pointer(address, pointer.context, [pointer]), self.context)

    model = property(lambda self: self._part(Model, "model"))
    tracker = property(lambda self: self._part(Tracker, "tracker"))
    masker = property(lambda self: self._part(Masker, "masker"))
    steps_done, outlier_rows = _value("trainer_steps_done"), _value("trainer_outlier_rows")

    @property
    def norm_limit(self):
        """Rows above it are left out, see max_norm; 0: none are."""
        return _lib.atmsae_trainer_norm_limit(self._as_parameter_, 0)

    def prepare(self, x, y=None, weights=None):
        _call(self, "trainer_prepare", self, _batch(self, x, y, weights))

    def step(self, x, y=None, weights=None):
        """One step; returns what it did: .loss, .fvu, .l0 ..."""
        stats = _struct("step_stats")
        _call(self, "trainer_step", self, _batch(self, x, y, weights), C.byref(stats))
        return stats

    def train(self, batches):
        """A step for each batch, rows or (rows, targets), giving its figures: for stats in tqdm(trainer.train(batches))."""
        return _Sized(lambda: (self.step(*(x if isinstance(x, tuple) else (x,))) for x in batches), lambda: len(batches))

    def calibrate(self, x, weights=None):
        _call(self, "trainer_calibrate", self, _batch(self, x, weights=weights))

    def begin_cooldown(self, steps):
        _call(self, "trainer_begin_cooldown", self, steps)

    def save(self, path, source=None):
        _call(self, "trainer_save", self, source and _expect(Source, source), _text(path))


class Source(_Handle):
    """A shuffled stream of rows; add inputs, then iterate over batches."""

    def __init__(self, context, **config):
        self._config = _struct("source_config", config)
        self._make(context, "source_create", context, C.byref(self._config))

    def add(self, rows, targets=None):
        """Rows in memory, which the source keeps, and a transcoder's target of each."""
        both = [_rows(rows)] + ([] if targets is None else [_rows(targets, what="targets")])
        if len(both[0][0]) != len(both[-1][0]):
            raise ValueError(f"{len(both[0][0])} rows, but {len(both[-1][0])} targets")
        pointer = self._as_parameter_
        for what, (a, ld, kind) in zip(("memory", "target_memory"), both):
            pointer.keep.append(a)
            _call(self, "source_add_" + what, pointer, a, len(a), a.shape[1], ld, kind)

    def add_file(self, path, tensor=None, as_bf16=False, targets=None, target_tensor=None):
        """targets: the file with a transcoder's target of each row."""
        for what, file, name in ("file", path, tensor), ("target_file", targets, target_tensor):
            if file is not None or what == "file":
                _call(self, "source_add_" + what, self, _text(file), None if name is None else _text(name), as_bf16)

    d, d_target, rows = _value("source_d"), _value("source_d_target"), _value("source_rows")

    def next(self, n):
        """Up to n rows, fewer at the end of the last pass, none after it; (rows, targets) where there are targets."""
        if not (d := self.d):
            raise ValueError("this source has no input yet")
        out, got = np.empty((n, d + self.d_target), np.float32), C.c_uint64()
        _call(self, "source_next", self, len(out), out, C.byref(got))
        out = out[: got.value]
        return (out[:, :d], out[:, d:]) if self.d_target else out

    def batches(self, n):
        def iterate():
            rows = self.next(n)
            while len(rows[0] if isinstance(rows, tuple) else rows):
                yield rows
                rows = self.next(n)

        return _Sized(iterate, lambda: -(-self.rows * self._config.epochs // n) or None)
