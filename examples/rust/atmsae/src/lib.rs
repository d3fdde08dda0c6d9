// SPDX-License-Identifier: MIT
//! libatmsae for Rust. The header atmsae.h is the manual.
//!
//! Handles free themselves. The borrow rules are the library's thread contract: what changes a handle
//! takes `&mut self`, what only reads it `&self` and may run on several threads at once; slices that a
//! handle lends live until it changes. Settings are the C structs, which start at the library's
//! defaults; sizes and pointers in them are set by this crate, whatever a caller writes there.

use std::ffi::{CStr, CString};
use std::fmt;
use std::marker::PhantomData;
use std::mem::{size_of, ManuallyDrop};
use std::ops::{Deref, DerefMut};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr::{null, null_mut};

pub use atmsae_sys as sys;
pub use sys::{
    atmsae_masker_config as MaskerConfig, atmsae_optimizer_config as OptimizerConfig, atmsae_source_config as SourceConfig,
    atmsae_step_stats as StepStats, atmsae_synth_config as SynthConfig, atmsae_tracker_config as TrackerConfig,
};

/// A call failed: its code (`sys::ATMSAE_E_ARG` ...) and the library's text. The code is of this call; the
/// text is the context's last, whole, but where threads share a context it may be of another's failure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    pub status: i32,
    pub text: String,
}
pub type Result<T> = std::result::Result<T, Error>;

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = unsafe { CStr::from_ptr(sys::atmsae_status_name(self.status)) };
        write!(f, "{}: {}", name.to_string_lossy(), self.text)
    }
}
impl std::error::Error for Error {}

fn wrong(text: String) -> Error {
    Error { status: sys::ATMSAE_E_ARG, text }
}

fn check(context: *const sys::atmsae_context, status: i32) -> Result<()> {
    if status >= 0 {
        return Ok(());
    }
    let mut text = [0u8; 1024];
    let n = unsafe { sys::atmsae_copy_error(context, text.as_mut_ptr().cast(), text.len()) };
    Err(Error { status, text: String::from_utf8_lossy(&text[..n.min(text.len() - 1)]).into_owned() })
}

fn make<T>(context: *const sys::atmsae_context, create: impl FnOnce(*mut *mut T) -> i32) -> Result<*mut T> {
    let mut out = null_mut();
    check(context, create(&mut out))?;
    Ok(out)
}

fn path(path: impl AsRef<Path>) -> Result<CString> {
    CString::new(path.as_ref().as_os_str().as_bytes()).map_err(|_| wrong("a path with a NUL byte".into()))
}

/// Zeros for n rows of d numbers that C will write, which knows nothing of the vector's length.
fn room(n: usize, d: u64) -> Result<Vec<f32>> {
    let d = d as usize;
    let fits = n.checked_mul(d).filter(|&numbers| numbers <= isize::MAX as usize / size_of::<f32>());
    Ok(vec![0.0; fits.ok_or_else(|| wrong(format!("{n} rows of {d} are more than memory can hold")))?])
}

unsafe fn lend<'a, T>(data: *const T, n: u64) -> &'a [T] {
    if data.is_null() {
        &[]
    } else {
        std::slice::from_raw_parts(data, n as usize)
    }
}

/// A handle, and the context that it keeps alive. `$destroy` frees it.
macro_rules! handle {
    ($(#[$doc:meta])* $name:ident $(<$life:lifetime>)?, $raw:ident, $destroy:ident { $($field:ident: $type:ty),* }) => {
        $(#[$doc])*
        pub struct $name $(<$life>)? {
            raw: *mut sys::$raw,
            #[allow(dead_code)] // of the context itself
            context: *mut sys::atmsae_context,
            $($field: $type,)*
        }
        impl $(<$life>)? Drop for $name $(<$life>)? {
            fn drop(&mut self) {
                unsafe { sys::$destroy(self.raw) }
            }
        }
        // One handle may move between threads, and its reading calls may run at the same time.
        unsafe impl $(<$life>)? Send for $name $(<$life>)? {}
        unsafe impl $(<$life>)? Sync for $name $(<$life>)? {}
        impl $(<$life>)? $name $(<$life>)? {
            /// For calls of `sys` that are not wrapped.
            pub fn as_ptr(&self) -> *mut sys::$raw {
                self.raw
            }
        }
    };
}

/// Something that belongs to a trainer.
pub struct Lent<'a, T> {
    value: ManuallyDrop<T>,
    owner: PhantomData<&'a T>,
}
impl<T> Deref for Lent<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.value
    }
}

handle!(Context, atmsae_context, atmsae_context_destroy {});

impl Context {
    /// Threads that compute; 0: one for each CPU that the process may use.
    pub fn new(threads: u32) -> Result<Context> {
        let config = sys::atmsae_context_config { threads, ..Default::default() };
        let mut raw = null_mut();
        match unsafe { sys::atmsae_context_create(&config, &mut raw) } {
            0 => Ok(Context { raw, context: raw }),
            status => Err(Error { status, text: "no context could be made".into() }),
        }
    }
    /// From then on training steps fail with ATMSAE_E_STOPPED.
    pub fn request_stop(&self) {
        unsafe { sys::atmsae_request_stop(self.raw) }
    }
    pub fn clear_stop(&self) {
        unsafe { sys::atmsae_clear_stop(self.raw) }
    }
}

/// Rows of f32 that follow each other, with targets and weights where wanted. Nothing is copied.
#[derive(Clone, Copy)]
pub struct Rows<'a> {
    x: &'a [f32],
    y: Option<&'a [f32]>,
    weights: Option<&'a [f32]>,
}
impl<'a> From<&'a [f32]> for Rows<'a> {
    fn from(x: &'a [f32]) -> Self {
        Rows { x, y: None, weights: None }
    }
}
impl<'a> From<&'a Vec<f32>> for Rows<'a> {
    fn from(x: &'a Vec<f32>) -> Self {
        Rows::from(&x[..])
    }
}
impl<'a> Rows<'a> {
    pub fn targets(self, y: &'a [f32]) -> Self {
        Rows { y: Some(y), ..self }
    }
    pub fn weights(self, weights: &'a [f32]) -> Self {
        Rows { weights: Some(weights), ..self }
    }
    /// The C struct, once everything has the right length.
    fn batch(&self, (d_in, d_out): (u64, u64)) -> Result<sys::atmsae_batch> {
        let n = self.x.len() as u64 / d_in;
        let fits = |what: &str, s: Option<&[f32]>, d: u64| match s {
            Some(s) if s.len() as u64 != n * d => Err(wrong(format!("{} {what}, expected {n} rows of {d}", s.len()))),
            s => Ok(s.map_or(null(), |s| s.as_ptr())),
        };
        Ok(sys::atmsae_batch {
            n_rows: n,
            x: fits("numbers", Some(self.x), d_in)?.cast(),
            y: fits("targets", self.y, d_out)?.cast(),
            row_weights: fits("weights", self.weights, 1)?,
            ..Default::default()
        })
    }
}

/// The C struct with Matryoshka's prefixes as a vector.
#[derive(Clone, Default)]
pub struct ModelConfig {
    raw: sys::atmsae_model_config,
    pub prefixes: Vec<u64>,
}
impl Deref for ModelConfig {
    type Target = sys::atmsae_model_config;
    fn deref(&self) -> &Self::Target {
        &self.raw
    }
}
impl DerefMut for ModelConfig {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.raw
    }
}
impl ModelConfig {
    fn raw(&self) -> sys::atmsae_model_config {
        sys::atmsae_model_config {
            size: size_of::<sys::atmsae_model_config>(),
            n_prefixes: self.prefixes.len() as u64,
            prefixes: self.prefixes.as_ptr(),
            ..self.raw
        }
    }
}

handle!(Model, atmsae_model, atmsae_model_destroy { d: (u64, u64), d_sae: u64 });

impl Model {
    fn wrap(raw: *mut sys::atmsae_model, context: *mut sys::atmsae_context) -> Model {
        let mut c = sys::atmsae_model_config::default();
        unsafe { sys::atmsae_model_get_config(raw, &mut c) };
        Model { raw, context, d: (c.d_in, c.d_out), d_sae: c.d_sae }
    }
    pub fn new(context: &Context, config: &ModelConfig) -> Result<Model> {
        let config = config.raw();
        let raw = make(context.raw, |out| unsafe { sys::atmsae_model_create(context.raw, &config, out) })?;
        Ok(Model::wrap(raw, context.raw))
    }
    /// Reads a SAELens folder.
    pub fn load(context: &Context, folder: impl AsRef<Path>) -> Result<Model> {
        let folder = path(folder)?;
        let raw = make(context.raw, |out| unsafe { sys::atmsae_model_load(context.raw, folder.as_ptr(), out) })?;
        Ok(Model::wrap(raw, context.raw))
    }
    pub fn save(&self, folder: impl AsRef<Path>) -> Result<()> {
        let folder = path(folder)?;
        check(self.context, unsafe { sys::atmsae_model_save(self.raw, folder.as_ptr(), null()) })
    }
    /// The configuration with every default resolved.
    pub fn config(&self) -> ModelConfig {
        let mut c = sys::atmsae_model_config::default();
        unsafe { sys::atmsae_model_get_config(self.raw, &mut c) };
        ModelConfig { raw: c, prefixes: unsafe { lend(c.prefixes, c.n_prefixes) }.to_vec() }
    }
    /// Latents: the rows of W_enc and W_dec.
    pub fn d_sae(&self) -> usize {
        self.d_sae as usize
    }
    /// A parameter (`sys::ATMSAE_W_DEC` ...); empty if the model has none such.
    pub fn view(&self, parameter: i32) -> &[f32] {
        let mut n = 0;
        unsafe { lend(sys::atmsae_model_view(self.raw, parameter, &mut n), n) }
    }
    pub fn set(&mut self, parameter: i32, values: &[f32]) -> Result<()> {
        let n = values.len() as u64;
        check(self.context, unsafe { sys::atmsae_model_set(self.raw, parameter, values.as_ptr(), n) })
    }
    pub fn prepare<'a>(&mut self, rows: impl Into<Rows<'a>>) -> Result<()> {
        let batch = rows.into().batch(self.d)?;
        check(self.context, unsafe { sys::atmsae_model_prepare(self.raw, &batch) })
    }
    pub fn calibrate<'a>(&mut self, rows: impl Into<Rows<'a>>) -> Result<()> {
        let batch = rows.into().batch(self.d)?;
        check(self.context, unsafe { sys::atmsae_model_calibrate(self.raw, &batch) })
    }
    pub fn encode<'a>(&self, rows: impl Into<Rows<'a>>, codes: &mut Codes) -> Result<()> {
        let batch = rows.into().batch(self.d)?;
        check(self.context, unsafe { sys::atmsae_encode(self.raw, &batch, codes.raw) })
    }
    /// The reconstructions of all rows, one after the other.
    pub fn decode(&self, codes: &Codes) -> Result<Vec<f32>> {
        let mut out = room(codes.view()?.n_rows(), self.d.1)?;
        check(self.context, unsafe { sys::atmsae_decode(self.raw, codes.raw, out.as_mut_ptr(), 0) })?;
        Ok(out)
    }
}

handle!(Codes, atmsae_codes, atmsae_codes_destroy {});

/// Sparse latents: row r has entries row_start[r] .. row_start[r + 1].
///
/// ```compile_fail,E0502
/// fn stale(model: &atmsae::Model, rows: &[f32], codes: &mut atmsae::Codes) -> atmsae::Result<u32> {
///     let view = codes.view()?;
///     model.encode(rows, codes)?; // fills the codes that view lends from
///     Ok(view.latent[0])
/// }
/// ```
pub struct CodesView<'a> {
    pub row_start: &'a [u64],
    pub latent: &'a [u32],
    pub value: &'a [f32],
}
impl CodesView<'_> {
    pub fn n_rows(&self) -> usize {
        self.row_start.len().saturating_sub(1)
    }
    pub fn row(&self, r: usize) -> impl Iterator<Item = (u32, f32)> + '_ {
        let entries = self.row_start[r] as usize..self.row_start[r + 1] as usize;
        entries.map(move |i| (self.latent[i], self.value[i]))
    }
}
impl Codes {
    pub fn new(context: &Context) -> Result<Codes> {
        let raw = make(context.raw, |out| unsafe { sys::atmsae_codes_create(context.raw, out) })?;
        Ok(Codes { raw, context: context.raw })
    }
    pub fn view(&self) -> Result<CodesView<'_>> {
        let mut v = sys::atmsae_codes_view::default();
        check(self.context, unsafe { sys::atmsae_codes_get(self.raw, &mut v) })?;
        let row_start = unsafe { lend(v.row_start, v.n_rows + 1) };
        let entries = row_start.last().copied().unwrap_or(0);
        Ok(CodesView { row_start, latent: unsafe { lend(v.latent, entries) }, value: unsafe { lend(v.value, entries) } })
    }
}

handle!(Tracker, atmsae_tracker, atmsae_tracker_destroy { d_sae: u64 });

/// Per-latent sums of one step, see `atmsae_latent_sums`.
#[derive(Clone, Copy)]
pub struct LatentSums<'a> {
    pub rows: &'a [f64],
    pub magnitude: &'a [f64],
    pub frequency: &'a [f64],
    pub contribution: &'a [f64],
}
impl Tracker {
    pub fn new(context: &Context, config: &TrackerConfig) -> Result<Tracker> {
        let config = TrackerConfig { size: size_of::<TrackerConfig>(), ..*config };
        let raw = make(context.raw, |out| unsafe { sys::atmsae_tracker_create(context.raw, &config, out) })?;
        Ok(Tracker { raw, context: context.raw, d_sae: config.d_sae })
    }
    pub fn observe(&mut self, sums: LatentSums<'_>) -> Result<()> {
        let arrays = [sums.rows, sums.magnitude, sums.frequency, sums.contribution];
        if let Some(a) = arrays.iter().find(|a| a.len() as u64 != self.d_sae) {
            return Err(wrong(format!("{} sums for {} latents", a.len(), self.d_sae)));
        }
        let raw = sys::atmsae_latent_sums {
            d_sae: self.d_sae,
            rows: sums.rows.as_ptr(),
            magnitude: sums.magnitude.as_ptr(),
            frequency: sums.frequency.as_ptr(),
            contribution: sums.contribution.as_ptr(),
            ..Default::default()
        };
        check(self.context, unsafe { sys::atmsae_tracker_observe(self.raw, &raw) })
    }
    pub fn importance(&self) -> &[f64] {
        unsafe { lend(sys::atmsae_tracker_importance(self.raw), self.d_sae) }
    }
    /// The dead latents, ascending.
    pub fn dead(&self) -> &[u32] {
        let mut n = 0;
        unsafe { lend(sys::atmsae_tracker_dead(self.raw, &mut n), n) }
    }
}

handle!(Masker, atmsae_masker, atmsae_masker_destroy { d_sae: u64 });

impl Masker {
    pub fn new(context: &Context, config: &MaskerConfig) -> Result<Masker> {
        let config = MaskerConfig { size: size_of::<MaskerConfig>(), ..*config };
        let raw = make(context.raw, |out| unsafe { sys::atmsae_masker_create(context.raw, &config, out) })?;
        Ok(Masker { raw, context: context.raw, d_sae: config.d_sae })
    }
    pub fn update(&mut self, importance: &[f64]) -> Result<()> {
        let (data, n) = (importance.as_ptr(), importance.len() as u64);
        check(self.context, unsafe { sys::atmsae_masker_update(self.raw, data, n) })
    }
    /// The mask of a step, 1: masked; empty where every row has its own (`per_row`), drawn with the probabilities `p`.
    pub fn draw(&mut self, step: u64) -> Result<&[u8]> {
        check(self.context, unsafe { sys::atmsae_masker_draw(self.raw, step) })?;
        Ok(unsafe { lend((*sys::atmsae_masker_mask(self.raw)).masked, self.d_sae) })
    }
    /// Masking probabilities of the last draw.
    pub fn p(&self) -> &[f64] {
        unsafe { lend(sys::atmsae_masker_p(self.raw), self.d_sae) }
    }
    pub fn theta(&self) -> f64 {
        unsafe { sys::atmsae_masker_theta(self.raw) }
    }
}

/// Settings of a trainer and of its parts.
#[derive(Clone, Default)]
pub struct TrainerConfig {
    pub model: ModelConfig,
    pub optimizer: OptimizerConfig,
    pub tracker: TrackerConfig,
    pub masker: MaskerConfig,
    pub total_rows: u64,
    /// 0: the library's default.
    pub batch_rows: u64,
}

handle!(Trainer, atmsae_trainer, atmsae_trainer_destroy { d: (u64, u64) });

impl Trainer {
    pub fn new(context: &Context, config: &TrainerConfig) -> Result<Trainer> {
        let model = config.model.raw();
        let optimizer = OptimizerConfig { size: size_of::<OptimizerConfig>(), ..config.optimizer };
        let tracker = TrackerConfig { size: size_of::<TrackerConfig>(), ..config.tracker };
        let masker = MaskerConfig { size: size_of::<MaskerConfig>(), ..config.masker };
        let mut c = sys::atmsae_trainer_config {
            model: &model,
            optimizer: &optimizer,
            tracker: &tracker,
            masker: &masker,
            total_rows: config.total_rows,
            ..Default::default()
        };
        if config.batch_rows > 0 {
            c.batch_rows = config.batch_rows;
        }
        let raw = make(context.raw, |out| unsafe { sys::atmsae_trainer_create(context.raw, &c, out) })?;
        Ok(Trainer::wrap(raw, context.raw))
    }
    fn wrap(raw: *mut sys::atmsae_trainer, context: *mut sys::atmsae_context) -> Trainer {
        let mut trainer = Trainer { raw, context, d: (0, 0) };
        trainer.d = trainer.model().d;
        trainer
    }
    pub fn prepare<'a>(&mut self, rows: impl Into<Rows<'a>>) -> Result<()> {
        let batch = rows.into().batch(self.d)?;
        check(self.context, unsafe { sys::atmsae_trainer_prepare(self.raw, &batch) })
    }
    pub fn step<'a>(&mut self, rows: impl Into<Rows<'a>>) -> Result<StepStats> {
        let (batch, mut stats) = (rows.into().batch(self.d)?, StepStats::default());
        check(self.context, unsafe { sys::atmsae_trainer_step(self.raw, &batch, &mut stats) })?;
        Ok(stats)
    }
    pub fn calibrate<'a>(&mut self, rows: impl Into<Rows<'a>>) -> Result<()> {
        let batch = rows.into().batch(self.d)?;
        check(self.context, unsafe { sys::atmsae_trainer_calibrate(self.raw, &batch) })
    }
    pub fn begin_cooldown(&mut self, steps: u64) -> Result<()> {
        check(self.context, unsafe { sys::atmsae_trainer_begin_cooldown(self.raw, steps) })
    }
    pub fn steps_done(&self) -> u64 {
        unsafe { sys::atmsae_trainer_steps_done(self.raw) }
    }
    /// The model, until the trainer changes or goes.
    ///
    /// ```compile_fail,E0505
    /// fn gone(trainer: atmsae::Trainer) -> f32 {
    ///     let model = trainer.model();
    ///     drop(trainer);
    ///     model.view(atmsae::sys::ATMSAE_W_DEC)[0]
    /// }
    /// ```
    pub fn model(&self) -> Lent<'_, Model> {
        let model = Model::wrap(unsafe { sys::atmsae_trainer_model(self.raw) }, self.context);
        Lent { value: ManuallyDrop::new(model), owner: PhantomData }
    }
    /// A checkpoint, with the source's position if there is one.
    pub fn save(&self, source: Option<&Source<'_>>, file: impl AsRef<Path>) -> Result<()> {
        let (source, file) = (source.map_or(null_mut(), |s| s.raw), path(file)?);
        check(self.context, unsafe { sys::atmsae_trainer_save(self.raw, source, file.as_ptr()) })
    }
    pub fn load(context: &Context, file: impl AsRef<Path>, source: Option<&mut Source<'_>>) -> Result<Trainer> {
        let (source, file) = (source.map_or(null_mut(), |s| s.raw), path(file)?);
        let raw = make(context.raw, |out| unsafe { sys::atmsae_trainer_load(context.raw, file.as_ptr(), source, out) })?;
        Ok(Trainer::wrap(raw, context.raw))
    }
}

handle!(
    /// A shuffled stream of rows, which stay where they are for `'a`.
    ///
    /// ```compile_fail,E0505
    /// fn gone(out: &mut [f32]) {
    ///     let context = atmsae::Context::new(1).unwrap();
    ///     let (rows, mut source) = (vec![0.0; 96], atmsae::Source::new(&context, &Default::default()).unwrap());
    ///     source.add_memory(&rows, 96).unwrap();
    ///     drop(rows);
    ///     source.next(out).unwrap();
    /// }
    /// ```
    Source<'a>, atmsae_source, atmsae_source_destroy { rows: PhantomData<&'a [f32]> }
);

impl<'a> Source<'a> {
    pub fn new(context: &Context, config: &SourceConfig) -> Result<Source<'a>> {
        let config = SourceConfig { size: size_of::<SourceConfig>(), ..*config };
        let raw = make(context.raw, |out| unsafe { sys::atmsae_source_create(context.raw, &config, out) })?;
        Ok(Source { raw, context: context.raw, rows: PhantomData })
    }
    pub fn add_memory(&mut self, rows: &'a [f32], d: usize) -> Result<()> {
        if d == 0 || rows.len() % d != 0 {
            return Err(wrong(format!("{} numbers are no rows of {d}", rows.len())));
        }
        let (n, d, kind) = ((rows.len() / d) as u64, d as u64, sys::ATMSAE_F32);
        check(self.context, unsafe { sys::atmsae_source_add_memory(self.raw, rows.as_ptr().cast(), n, d, 0, kind) })
    }
    /// A .npy or .safetensors file.
    pub fn add_file(&mut self, file: impl AsRef<Path>) -> Result<()> {
        let file = path(file)?;
        check(self.context, unsafe { sys::atmsae_source_add_file(self.raw, file.as_ptr(), null(), 0) })
    }
    /// Targets of a transcoder, of `d` numbers each, for the rows that were added last.
    pub fn add_target_memory(&mut self, rows: &'a [f32], d: usize) -> Result<()> {
        if d == 0 || rows.len() % d != 0 {
            return Err(wrong(format!("{} numbers are no targets of {d}", rows.len())));
        }
        let (n, d, kind) = ((rows.len() / d) as u64, d as u64, sys::ATMSAE_F32);
        check(self.context, unsafe { sys::atmsae_source_add_target_memory(self.raw, rows.as_ptr().cast(), n, d, 0, kind) })
    }
    pub fn add_target_file(&mut self, file: impl AsRef<Path>) -> Result<()> {
        let file = path(file)?;
        check(self.context, unsafe { sys::atmsae_source_add_target_file(self.raw, file.as_ptr(), null(), 0) })
    }
    pub fn d(&self) -> usize {
        unsafe { sys::atmsae_source_d(self.raw) as usize }
    }
    /// Width of the targets; 0: there are none.
    pub fn d_target(&self) -> usize {
        unsafe { sys::atmsae_source_d_target(self.raw) as usize }
    }
    /// Rows that `next` gave, each followed by its target, as inputs and targets apart.
    pub fn split(&self, rows: &[f32]) -> (Vec<f32>, Vec<f32>) {
        let (d, width) = (self.d(), (self.d() + self.d_target()).max(1));
        let (mut x, mut y) = (Vec::new(), Vec::new());
        for row in rows.chunks_exact(width) {
            x.extend_from_slice(&row[..d]);
            y.extend_from_slice(&row[d..]);
        }
        (x, y)
    }
    /// Fills `out` with rows, each followed by its target if there are any; returns those that came, fewer (or none) at
    /// the end of the last pass.
    pub fn next<'b>(&mut self, out: &'b mut [f32]) -> Result<&'b [f32]> {
        let (d, mut got) = ((self.d() + self.d_target()).max(1), 0);
        let n = (out.len() / d) as u64;
        check(self.context, unsafe { sys::atmsae_source_next(self.raw, n, out.as_mut_ptr(), &mut got) })?;
        Ok(&out[..got as usize * d])
    }
}

handle!(
    /// Rows with known features.
    Synth, atmsae_synth, atmsae_synth_destroy { d: u64 }
);

impl Synth {
    pub fn new(context: &Context, config: &SynthConfig) -> Result<Synth> {
        let config = SynthConfig { size: size_of::<SynthConfig>(), ..*config };
        let raw = make(context.raw, |out| unsafe { sys::atmsae_synth_create(context.raw, &config, out) })?;
        Ok(Synth { raw, context: context.raw, d: config.d })
    }
    pub fn rows(&self, first: u64, n: usize) -> Result<Vec<f32>> {
        let mut x = room(n, self.d)?;
        check(self.context, unsafe { sys::atmsae_synth_rows(self.raw, first, n as u64, x.as_mut_ptr(), null_mut()) })?;
        Ok(x)
    }
}
