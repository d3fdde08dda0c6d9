# SPDX-License-Identifier: MIT
"""libatmsae for Python: ctypes, one file, nothing to build. The header atmsae.h is the manual.

Rows go in as 2-D NumPy arrays, torch CPU tensors (f32, f16, from torch also bf16) or whatever
np.asarray takes without a copy; rows may lie any distance apart. Nothing is copied. Arrays that come
out are read-only NumPy arrays on the library's memory, valid as long as the header says: `.copy()`
what must last. tensor() makes a torch tensor of one. Settings are the header's fields as keywords;
enum fields also take names: activation="batchtopk". Failures raise Error. Calls release the GIL.

The library is the file named by ATMSAE_LIBRARY, else the one the loader finds, else pkg-config's.
"""
import ctypes as C
import os
import subprocess
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

# ---- structs: the header's fields after `size`; u u64, w u32, i i32, d double, p pointer

_STRUCTS = """
context_config w:threads i:log_level p:allocator,log,log_opaque i:precision,pad0_
model_config u:d_in,d_out,d_sae,seed i:activation,decoder_norm,input_norm,b_dec_init,transcoder,pad0_ d:k,sparsity_coef,target_l0,bandwidth,init_threshold,tanh_scale,pre_act_coef,decoder_init_norm,aux_coef u:aux_k,n_prefixes p:prefixes
batch u:n_rows p:x u:ld_x p:y u:ld_y p:row_weights i:x_type,y_type
codes_view u:n_rows,d_sae p:row_start,latent,value
save_options p:model_name,hook_name,format i:fold_decoder_norm w:layer p:latents,strengths u:n_latents
optimizer_config d:lr,beta1,beta2,eps,clip u:total_steps,warmup_steps,decay_steps i:freeze_masked,pad0_
tracker_config u:d_sae d:decay,weight_magnitude,weight_frequency,weight_contribution i:combine,observed_only u:dead_window
masker_config u:d_sae,seed i:kind,per_row d:c,r u:total_steps,warmup_steps d:cooldown_start,cooldown_end
trainer_config p:model,optimizer,tracker,masker u:total_rows,batch_rows d:sparsity_warmup u:skip_bad_rows
step_stats u:step,rows d:loss,mse,sparsity,aux,fvu,l0 u:dead,masked d:mean_p,r,lr,grad_norm u:bad_rows
source_config u:shuffle_rows,seed,epochs
mask u:d_sae p:masked,p u:seed,step
latent_sums u:d_sae p:rows,magnitude,frequency,contribution
"""
_ENUMS = """
activation relu topk batchtopk jumprelu jumprelu_tanh gated
decoder_norm free unit
input_norm raw sqrt_d
b_dec_init zero mean median
combine arithmetic geometric
kind none atm paper uniform permuted
precision f32 bf16
"""
_ENUMS = {field: {v: i + (field != "precision") for i, v in enumerate(values)}
          for field, *values in map(str.split, _ENUMS.strip().splitlines())}  # fmt: skip
_TYPES = dict(u=C.c_uint64, w=C.c_uint32, i=C.c_int32, d=C.c_double, p=C.c_void_p)


class _Base(C.Structure):
    def asdict(self):
        return {f: getattr(self, f) for f, kind in self._fields_[1:] if kind is not C.c_void_p and f != "pad0_"}

    def __repr__(self):
        return ", ".join(f"{f}={v:.5g}" if isinstance(v, float) else f"{f}={v}" for f, v in self.asdict().items())


structs = {}
for _name, *_groups in map(str.split, _STRUCTS.strip().splitlines()):
    _fields = [(f, _TYPES[g[0]]) for g in _groups for f in g[2:].split(",")]
    structs[_name] = type(_name, (_Base,), {"_fields_": [("size", C.c_size_t)] + _fields})


def _struct(name, values=None):
    """A struct with the library's defaults, where it has any, and the given values."""
    s = structs[name](size=C.sizeof(structs[name]))
    if name.endswith(("config", "options", "batch")):
        getattr(_lib, f"atmsae_{name}_init")(C.byref(s), C.c_size_t(C.sizeof(s)))
    for field, value in (values or {}).items():
        if not hasattr(s, field):
            raise TypeError(f"no setting {field!r}; there are {', '.join(s.asdict())}")
        if isinstance(value, str):
            if value.lower() not in _ENUMS.get(field, ()):
                raise ValueError(f"{field}={value!r}: one of {', '.join(_ENUMS.get(field, ()))}")
            value = _ENUMS[field][value.lower()]
        if field == "prefixes":
            s.n_prefixes, s.keep = len(value), (C.c_uint64 * len(value))(*value)
            value = C.addressof(s.keep)
        setattr(s, field, value)
    return s


# ---- functions: what does not return a status or nothing ----

_RESULTS = """
status_name b, last_error b, model_view p, trainer_steps_done u, trainer_model p, trainer_tracker p, trainer_masker p,
source_d u, source_rows u, tracker_importance p, tracker_dead p, masker_mask p, masker_theta d, masker_rate d,
masker_mean_p d, masker_p p
"""
for _name, _result in map(str.split, _RESULTS.split(",")):
    getattr(_lib, "atmsae_" + _name).restype = C.c_char_p if _result == "b" else _TYPES[_result]
_LOG = C.CFUNCTYPE(None, C.c_void_p, C.c_int32, C.c_char_p)


class Error(Exception):
    """A call failed. `status` is the code's name, the text is the library's."""


def _call(context, function, *args):
    # Whole numbers in full width: ctypes would pass an int.
    status = getattr(_lib, "atmsae_" + function)(*(C.c_uint64(a) if isinstance(a, int) else a for a in args))
    if status < 0:
        name = _lib.atmsae_status_name(status).decode()
        error = Error(f"{name}: {_lib.atmsae_last_error(C.c_void_p(context.pointer)).decode() if context.pointer else ''}")
        error.status = name
        raise error


# ---- arrays

_TORCH = dict(float64="<f8", float32="<f4", float16="<f2", bfloat16="bf16", uint8="|u1")


def _describe(x):
    """(address, shape, strides in elements, type) of an array."""
    if hasattr(x, "data_ptr"):  # torch
        if x.device.type != "cpu":
            raise TypeError(f"a tensor on {x.device}; the library works on CPU memory")
        kind = str(x.dtype)[6:]
        return x.data_ptr(), tuple(x.shape), x.stride(), _TORCH.get(kind, kind)
    if isinstance(x, (list, tuple, int, float)):
        raise TypeError("need an array or a tensor")
    a = np.asarray(x)
    return a.__array_interface__["data"][0], a.shape, [s / a.itemsize for s in a.strides], a.dtype.str


def _rows(x, d, what="rows"):
    """(address, rows, distance of rows, type) of a 2-D array with d columns."""
    address, shape, strides, kind = _describe(x)
    kinds = {"<f4": 1, "<f2": 2, "bf16": 3}
    if len(shape) != 2 or shape[1] != d or kind not in kinds:
        raise ValueError(f"{what}: {kind} of shape {shape}, expected <f4, <f2 or bf16 of [n, {d}]")
    ld = strides[0] if shape[0] > 1 else d
    if (d > 1 and strides[1] != 1) or ld < d or ld % 1:
        raise ValueError(f"{what}: strides {strides}; elements of a row must be adjacent, rows must not overlap")
    return address, shape[0], int(ld), kinds[kind]


def _vector(x, kind, shape, what):
    """Address of adjacent elements of exactly this type."""
    address, own_shape, strides, own = _describe(x)
    if own != kind or tuple(own_shape) != shape:
        raise ValueError(f"{what}: {own} of shape {tuple(own_shape)}, expected {kind} of {shape}")
    if any(n > 1 and s != np.prod(shape[i + 1 :]) for i, (n, s) in enumerate(zip(shape, strides))):
        raise ValueError(f"{what}: not contiguous")
    return address


class _Lent:
    """Gives NumPy library memory, and keeps its owner alive."""

    def __init__(self, address, shape, kind, owner, read_only=True):
        self.owner = owner
        self.__array_interface__ = dict(data=(address, read_only), shape=shape, typestr=kind, version=3)


def _lend(address, shape, kind, owner):
    return np.asarray(_Lent(address, shape, kind, owner)) if address and 0 not in shape else np.zeros(shape, kind)


def tensor(array):
    """A torch tensor on the memory of a lent array. torch has no read-only tensors: do not write to it."""
    import torch

    i = array.__array_interface__
    return torch.from_numpy(np.asarray(_Lent(i["data"][0], i["shape"], i["typestr"], array, read_only=False)))


def _batch(owner, x, y=None, weights=None):
    b = _struct("batch")
    b.x, b.n_rows, b.ld_x, b.x_type = _rows(x, owner.d_in)
    if y is not None:
        b.y, n, b.ld_y, b.y_type = _rows(y, owner.d_out, "targets")
        if n != b.n_rows:
            raise ValueError(f"{b.n_rows} rows, but {n} targets")
    if weights is not None:
        b.row_weights = _vector(weights, "<f4", (b.n_rows,), "weights")
    return C.byref(b)  # which refers to b; x, y and weights are the caller's


# ---- handles


class _Handle:
    """Owns a handle or, given an owner, borrows one of it. Close it, use `with`, or let it go."""

    def _take(self, pointer, context, owner=None):
        self.pointer, self.context, self.owner = pointer, context, owner
        if owner is None:
            destroy = getattr(_lib, f"atmsae_{type(self).__name__.lower()}_destroy")
            self._destroy = weakref.finalize(self, destroy, C.c_void_p(pointer))
        return self

    def _make(self, context, function, *args):
        out = C.c_void_p()
        _call(context, function, *args, C.byref(out))
        return self._take(out.value, context)

    @property
    def _as_parameter_(self):  # what ctypes passes
        if self.owner._as_parameter_ if self.owner is not None else self._destroy.alive:
            return C.c_void_p(self.pointer)
        raise ValueError("this handle was closed")

    def close(self):
        """Arrays that it lent must not be used any more."""
        if self.owner is None:
            self._destroy()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def _value(function):
    return property(lambda self: getattr(_lib, "atmsae_" + function)(self))


class Context(_Handle):
    """threads=0: one a CPU. log: a function of (level, text); levels 1 error, 2 warning, 3 info."""

    def __init__(self, threads=0, log=None, log_level=3, precision="f32"):
        self.pointer = None
        config = _struct("context_config", dict(threads=threads, log_level=log_level, precision=precision))
        if log:
            self._log = _LOG(lambda _, level, text: log(level, text.decode()))
            config.log = C.cast(self._log, C.c_void_p)
        self._make(self, "context_create", C.byref(config))

    def request_stop(self):
        _lib.atmsae_request_stop(self)


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
        return cls.__new__(cls)._make(context, "model_load", context, os.fsencode(path))

    def _take(self, *args):
        super()._take(*args)
        self.config = _struct("model_config")  # every default resolved
        _call(self.context, "model_get_config", self, C.byref(self.config))
        self.d_in, self.d_out, self.d_sae = self.config.d_in, self.config.d_out, self.config.d_sae
        return self

    def _parameter(self, name):
        number, shape = self._parameters[name]
        return number, tuple(getattr(self, s) for s in shape)

    def __getitem__(self, name):
        """A parameter, lent: model["W_dec"]."""
        number, shape = self._parameter(name)
        address = _lib.atmsae_model_view(self, number, C.byref(C.c_uint64()))
        if not address:
            raise KeyError(f"this model has no {name}")
        return _lend(address, shape, "<f4", self)

    def __setitem__(self, name, values):
        number, shape = self._parameter(name)
        values = np.asarray(values, np.float32) if shape == () else values
        _call(self.context, "model_set", self, number, _vector(values, "<f4", shape, name), int(np.prod(shape)))

    def encode(self, x, codes=None):
        """The rows' latents, in new codes or in those given."""
        codes = codes or Codes(self.context)
        _call(self.context, "encode", self, _batch(self, x), codes)
        return codes

    def decode(self, codes, out=None):
        """The reconstruction, f32 [n, d_out]; out: where to write it."""
        out = np.empty((codes.n_rows, self.d_out), np.float32) if out is None else out
        address, n, ld, kind = _rows(out, self.d_out, "out")
        if n != codes.n_rows or kind != 1:
            raise ValueError(f"out: must be f32 of {codes.n_rows} rows")
        _call(self.context, "decode", self, codes, address, ld)
        return out

    def prepare(self, x, y=None, weights=None):
        _call(self.context, "model_prepare", self, _batch(self, x, y, weights))

    def calibrate(self, x, weights=None):
        _call(self.context, "model_calibrate", self, _batch(self, x, weights=weights))

    def save(self, path, latents=(), strengths=None, **options):
        """A SAELens v6 folder, Gemma Scope's .npz or, of some latents, a control vector, .gguf."""
        keep = {f: v.encode() for f, v in options.items() if isinstance(v, str)}
        options.update((f, C.cast(C.c_char_p(v), C.c_void_p)) for f, v in keep.items())
        options = _struct("save_options", options)
        latents, options.n_latents = np.array(latents, "<u4"), len(latents)
        options.latents = _vector(latents, "<u4", latents.shape, "latents")
        if strengths is not None:
            strengths = np.array(strengths, "<f4")
            options.strengths = _vector(strengths, "<f4", latents.shape, "strengths")
        _call(self.context, "model_save", self, os.fsencode(path), C.byref(options))


class Codes(_Handle):
    """Sparse latents: row r has entries row_start[r] .. row_start[r+1]-1 of latent and value."""

    def __init__(self, context):
        self._make(context, "codes_create", context)

    def _view(self):
        v = _struct("codes_view")
        _call(self.context, "codes_get", self, C.byref(v))
        return v

    n_rows = property(lambda self: self._view().n_rows)
    row_start = property(lambda self: _lend(self._view().row_start, (self.n_rows + 1,), "<u8", self))
    latent = property(lambda self: _lend(self._view().latent, (int(self.row_start[-1]),), "<u4", self))
    value = property(lambda self: _lend(self._view().value, (int(self.row_start[-1]),), "<f4", self))

    def dense(self):
        f = np.zeros((self.n_rows, self._view().d_sae), np.float32)
        f[np.repeat(np.arange(self.n_rows), np.diff(self.row_start.astype(np.int64))), self.latent] = self.value
        return f


class Tracker(_Handle):
    """Importance of each latent, from sums that any training loop can make."""

    def __init__(self, context, d_sae, **config):
        self.d_sae = d_sae
        self._make(context, "tracker_create", context, C.byref(_struct("tracker_config", dict(config, d_sae=d_sae))))

    def observe(self, rows, magnitude, frequency, contribution):
        """Four float64 arrays [d_sae], see atmsae_latent_sums."""
        sums = _struct("latent_sums", dict(d_sae=self.d_sae))
        sums.rows, sums.magnitude, sums.frequency, sums.contribution = (
            _vector(a, "<f8", (self.d_sae,), "sums") for a in (rows, magnitude, frequency, contribution)
        )
        _call(self.context, "tracker_observe", self, C.byref(sums))

    @property
    def importance(self):
        return _lend(_lib.atmsae_tracker_importance(self), (self.d_sae,), "<f8", self)

    @property
    def dead(self):
        n = C.c_uint64()
        address = _lib.atmsae_tracker_dead(self, C.byref(n))
        return _lend(address, (n.value,), "<u4", self)


class Masker(_Handle):
    """Which latents sit out a step."""

    def __init__(self, context, d_sae, **config):
        self.d_sae = d_sae
        self._make(context, "masker_create", context, C.byref(_struct("masker_config", dict(config, d_sae=d_sae))))

    def draw(self, step):
        """The mask of a step, uint8 [d_sae], 1: masked; lent until the next draw."""
        _call(self.context, "masker_draw", self, step)
        mask = structs["mask"].from_address(_lib.atmsae_masker_mask(self))
        return _lend(mask.masked, (self.d_sae,), "|u1", self)

    def update(self, importance):
        address = _vector(importance, "<f8", (self.d_sae,), "importance")
        _call(self.context, "masker_update", self, address, self.d_sae)

    @property
    def p(self):
        return _lend(_lib.atmsae_masker_p(self), (self.d_sae,), "<f8", self)

    def begin_cooldown(self, first_step, steps):
        _call(self.context, "masker_begin_cooldown", self, first_step, steps)

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
        pointers = {name: C.addressof(part) for name, part in parts.items()}
        self._make(context, "trainer_create", context, C.byref(_struct("trainer_config", dict(config, **pointers))))

    @classmethod
    def load(cls, context, path, source=None):
        return cls.__new__(cls)._make(context, "trainer_load", context, os.fsencode(path), source)

    def _take(self, *args):
        super()._take(*args)
        self.d_in, self.d_out, self.d_sae = (model := self.model).d_in, model.d_out, model.d_sae
        return self

    def _part(self, kind, function):
        part = kind.__new__(kind)
        part.d_sae = getattr(self, "d_sae", 0)
        return part._take(getattr(_lib, "atmsae_trainer_" + function)(self), self.context, self)

    model = property(lambda self: self._part(Model, "model"))
    tracker = property(lambda self: self._part(Tracker, "tracker"))
    masker = property(lambda self: self._part(Masker, "masker"))
    steps_done = _value("trainer_steps_done")

    def prepare(self, x, y=None, weights=None):
        _call(self.context, "trainer_prepare", self, _batch(self, x, y, weights))

    def step(self, x, y=None, weights=None):
        """One step; returns what it did: .loss, .fvu, .l0 ..."""
        stats = _struct("step_stats")
        _call(self.context, "trainer_step", self, _batch(self, x, y, weights), C.byref(stats))
        return stats

    def train(self, batches):
        """A step for each batch, giving its figures: for stats in tqdm(trainer.train(batches))."""
        return _Sized(lambda: (self.step(x) for x in batches), lambda: len(batches))

    def calibrate(self, x, weights=None):
        _call(self.context, "trainer_calibrate", self, _batch(self, x, weights=weights))

    def begin_cooldown(self, steps):
        _call(self.context, "trainer_begin_cooldown", self, steps)

    def save(self, path, source=None):
        _call(self.context, "trainer_save", self, source, os.fsencode(path))


class Source(_Handle):
    """A shuffled stream of rows; add inputs, then iterate over batches."""

    def __init__(self, context, **config):
        self._config, self._keep = _struct("source_config", config), []
        self._make(context, "source_create", context, C.byref(self._config))

    def add(self, rows):
        """Rows in memory; the source keeps a reference."""
        d = rows.shape[1]
        address, n, ld, kind = _rows(rows, d)
        _call(self.context, "source_add_memory", self, address, n, d, ld, kind)
        self._keep.append(rows)

    def add_file(self, path, tensor=None, as_bf16=False):
        _call(self.context, "source_add_file", self, os.fsencode(path), tensor and tensor.encode(), as_bf16)

    d, rows = _value("source_d"), _value("source_rows")

    def next(self, n):
        """Up to n rows, fewer at the end of the last pass, none after it."""
        out, got = np.empty((n, self.d), np.float32), C.c_uint64()
        _call(self.context, "source_next", self, n, out.ctypes.data, C.byref(got))
        return out[: got.value]

    def batches(self, n):
        def iterate():
            while len(rows := self.next(n)):
                yield rows

        return _Sized(iterate, lambda: -(-self.rows * self._config.epochs // n) or None)
