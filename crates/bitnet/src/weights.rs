//! The tensors of a model.

use crate::attention::{MAX_GROUP, MAX_HEAD};
use crate::config::{Config, ConfigError};
use crate::tiles::ShapeTiles;
use bytes::Bytes;
use footprint::bitnet::Head as HeadType;
use half::{bf16, f16};
use kernels::{
    DenseError, DenseMatrix, DenseType, Kernel, Layout, LookUp, MatrixError, NARROWEST, Pool, QuantizedLinear, Table, TernaryMatrix,
};
use spec::model::{MetaValue, Tensor};
use spec::{Model, QuantType};

/// The key that says what the scales of packed weights do, as `formats::huggingface` writes it.
const LINEAR_CLASS: &str = "quantization_config.linear_class";

// Blocks as the kernels cut them are blocks as files are measured.
const _: () = {
    assert!(QuantType::I2_S.block().weights == 4 && QuantType::I2_S.block().bytes.get() == 1);
    assert!(QuantType::HF_U2.block().weights == 4 && QuantType::HF_U2.block().bytes.get() == 1);
    assert!(QuantType::TQ1_0.block().weights == 256 && QuantType::TQ1_0.block().bytes.get() == 54);
    assert!(QuantType::TQ2_0.block().weights == 256 && QuantType::TQ2_0.block().bytes.get() == 66);
    let (weights, bytes) = DenseType::Q8_0.block();
    assert!(QuantType::Q8_0.block().weights == weights as u64 && QuantType::Q8_0.block().bytes.get() == bytes as u64);
};

/// What a file does not say.
#[derive(Clone, Copy, Debug)]
pub struct LoadOptions<'a> {
    /// How its `I2_S` tensors interleave their codes.
    pub layout: Layout,
    /// How the head is kept.
    pub head: HeadType,
    /// How its `TL1` and `TL2` tensors are tiled; of several for a shape the first counts.
    pub tiles: &'a [ShapeTiles],
    /// What computes.
    pub kernel: Kernel,
    /// Threads that copy what cannot be used in place, the caller's included.
    pub threads: usize,
}

impl Default for LoadOptions<'_> {
    /// The layout of almost all files, the head as it is, no tiles, the fastest kernel of this processor, one thread.
    fn default() -> Self {
        Self { layout: Layout::default(), head: HeadType::default(), tiles: &[], kernel: Kernel::best(), threads: 1 }
    }
}

/// Tensors that are no BitNet model.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum WeightError {
    /// Metadata.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A tensor that every such model has.
    #[error("tensor {0} is not in the file")]
    Missing(String),
    /// A tensor of a type that cannot stand there.
    #[error("tensor {name} is {ty}; {takes} is what can stand there")]
    Type {
        /// Its name.
        name: String,
        /// Its type.
        ty: QuantType,
        /// Types that can.
        takes: &'static str,
    },
    /// A tensor of another shape than the metadata says.
    #[error("tensor {name} is {found}, and the metadata makes it {expected}")]
    Shape {
        /// Its name.
        name: String,
        /// Its shape.
        found: String,
        /// What it should be.
        expected: String,
    },
    /// A tensor beyond the end of its file.
    #[error("tensor {name} ends at byte {end} of a file of {length} bytes")]
    Cut {
        /// Its name.
        name: String,
        /// Where it would end.
        end: u64,
        /// Length of the file.
        length: u64,
    },
    /// Ternary weights that are no matrix.
    #[error("tensor {name}: {error}")]
    Matrix {
        /// Its name.
        name: String,
        /// What is wrong.
        error: MatrixError,
    },
    /// Dense weights that are no matrix.
    #[error("tensor {name}: {error}")]
    Dense {
        /// Its name.
        name: String,
        /// What is wrong.
        error: DenseError,
    },
    /// Weights in tiles that are not known.
    #[error(
        "tensor {name} is {ty}, whose tiles no model file states: they stand in the kernel_config.ini of the build that it was made for, \
         where a section with m = {rows} and k = {columns} is needed"
    )]
    Untiled {
        /// Its name.
        name: String,
        /// Its type.
        ty: QuantType,
        /// Its rows.
        rows: usize,
        /// Its columns.
        columns: usize,
    },
    /// The system starts no thread.
    #[error("no thread to copy weights could be started: {0}")]
    Thread(std::io::ErrorKind),
    /// Heads wider, or shared by more queries, than this engine computes.
    #[error("heads of {head_dim} with {group} queries each: this engine takes {MAX_HEAD} and {MAX_GROUP} at most")]
    Heads {
        /// Width.
        head_dim: usize,
        /// Query heads per key head.
        group: usize,
    },
}

/// One layer: norms, and the projections of attention and of the feed-forward part.
#[derive(Clone, Debug)]
pub struct Layer {
    /// Before attention.
    pub attn_norm: Vec<f32>,
    /// Queries.
    pub q: QuantizedLinear,
    /// Keys.
    pub k: QuantizedLinear,
    /// Values.
    pub v: QuantizedLinear,
    /// Before the output of attention.
    pub attn_sub_norm: Vec<f32>,
    /// The output of attention.
    pub output: QuantizedLinear,
    /// Before gate and up.
    pub ffn_norm: Vec<f32>,
    /// What decides how much of `up` counts.
    pub gate: QuantizedLinear,
    /// Up.
    pub up: QuantizedLinear,
    /// Before down.
    pub ffn_sub_norm: Vec<f32>,
    /// Down.
    pub down: QuantizedLinear,
}

impl Layer {
    /// Its projections.
    fn linear(&self) -> [&QuantizedLinear; 7] {
        [&self.q, &self.k, &self.v, &self.output, &self.gate, &self.up, &self.down]
    }

    /// Its norms.
    fn norms(&self) -> [&[f32]; 4] {
        [&self.attn_norm, &self.attn_sub_norm, &self.ffn_norm, &self.ffn_sub_norm]
    }
}

/// A model that is ready to compute.
#[derive(Clone, Debug)]
pub struct Weights {
    pub(crate) config: Config,
    pub(crate) kernel: Kernel,
    pub(crate) embedding: DenseMatrix,
    pub(crate) layers: Vec<Layer>,
    pub(crate) output_norm: Vec<f32>,
    /// `None` where the embedding table is the head.
    pub(crate) head: Option<DenseMatrix>,
    copied: u64,
}

impl Weights {
    /// From the tensors of `model`, whose files (whole, mapped) are `files` in the model's order. Nothing is copied but norms, weights in
    /// another layout than the kernels', and a head in another type than the file's.
    ///
    /// # Errors
    /// The first thing that is not as in a BitNet model, by the tensor's name.
    pub fn load(model: &Model, files: &[Bytes], options: &LoadOptions<'_>) -> Result<Self, WeightError> {
        let config = Config::of(model)?;
        let group = config.n_head / config.n_head_kv;
        if config.head_dim > MAX_HEAD || group > MAX_GROUP {
            return Err(WeightError::Heads { head_dim: config.head_dim, group });
        }
        let mut pool = Pool::new(options.threads).map_err(|error| WeightError::Thread(error.kind()))?;
        let source = Source { model, files, options };
        let embedding = source.dense("token_embd.weight", config.n_vocab, config.n_embd)?;
        let mut layers = Vec::new();
        while layers.len() < config.n_layer {
            // Layers are copied side by side, as many as there are threads: a file that claims more than it has is refused early.
            let mut some: Vec<_> = (layers.len()..config.n_layer).take(pool.threads()).map(|_| None).collect();
            pool.each_row(Table::new(&mut some, 1), |place, slot: &mut [_]| {
                slot.iter_mut().for_each(|slot| *slot = Some(source.layer(layers.len() + place, &config)));
            });
            for layer in some.into_iter().flatten() {
                layers.push(layer?);
            }
        }
        let output_norm = source.vector("output_norm.weight", config.n_embd)?;
        let own = source.find("output.weight").is_ok();
        let head = if own { Some(source.dense("output.weight", config.n_vocab, config.n_embd)?) } else { None };
        let mut head_copy = 0;
        let head = match options.head {
            HeadType::Q8_0 if head.as_ref().unwrap_or(&embedding).ty() != DenseType::Q8_0 => {
                let name = if own { "output.weight" } else { "token_embd.weight" };
                let smaller = head.as_ref().unwrap_or(&embedding).to_q8_0(options.kernel, &mut pool);
                let smaller = smaller.map_err(|error| WeightError::Dense { name: name.into(), error })?;
                head_copy = smaller.bytes();
                Some(smaller)
            }
            _ => head,
        };
        let norms = layers.iter().flat_map(Layer::norms).chain([&output_norm[..]]).map(size_of_val).sum::<usize>();
        let codes: usize = layers.iter().flat_map(Layer::linear).map(|linear| linear.weights().copied_bytes()).sum();
        let copied = (norms + codes + head_copy) as u64;
        Ok(Self { config, kernel: options.kernel, embedding, layers, output_norm, head, copied })
    }

    /// The shape.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Its layers, the first one first.
    pub fn layers(&self) -> &[Layer] {
        &self.layers
    }

    /// What computes.
    pub fn kernel(&self) -> Kernel {
        self.kernel
    }

    /// Bytes of memory beyond the mapped file.
    pub fn copied_bytes(&self) -> u64 {
        self.copied
    }

    /// Bytes of ternary codes, all of which a token reads.
    pub fn code_bytes(&self) -> usize {
        self.layers.iter().flat_map(Layer::linear).map(|linear| linear.weights().code_bytes()).sum()
    }

    /// The norm before the output head.
    pub fn output_norm(&self) -> &[f32] {
        &self.output_norm
    }

    /// The output head.
    pub fn head(&self) -> &DenseMatrix {
        self.head.as_ref().unwrap_or(&self.embedding)
    }
}

struct Source<'a> {
    model: &'a Model,
    files: &'a [Bytes],
    options: &'a LoadOptions<'a>,
}

impl Source<'_> {
    fn find(&self, name: &str) -> Result<&Tensor, WeightError> {
        self.model.tensors.iter().find(|tensor| tensor.name == name).ok_or_else(|| WeightError::Missing(name.to_owned()))
    }

    /// A tensor's bytes in its file.
    fn bytes(&self, tensor: &Tensor) -> Result<Bytes, WeightError> {
        let file = self.files.get(tensor.file).cloned().unwrap_or_default();
        let data = self.model.files.get(tensor.file).map_or(0, |file| file.data_offset.get());
        let start = data.saturating_add(tensor.offset.get());
        let end = start.saturating_add(tensor.bytes.get());
        let cut = || WeightError::Cut { name: tensor.name.clone(), end, length: file.len() as u64 };
        match (usize::try_from(start), usize::try_from(end)) {
            (Ok(start), Ok(end)) if end <= file.len() => Ok(file.slice(start..end)),
            _ => Err(cut()),
        }
    }

    /// A tensor whose shape is `columns × rows`, with its bytes.
    fn shaped(&self, name: &str, rows: usize, columns: usize) -> Result<(&Tensor, Bytes), WeightError> {
        let tensor = self.find(name)?;
        if tensor.shape != [columns as u64, rows as u64, 1, 1] {
            let text =
                |shape: [u64; 4]| format!("{} × {}", shape[0], shape[1..].iter().fold(1, |rows: u64, &size| rows.saturating_mul(size)));
            let (found, expected) = (text(tensor.shape), format!("{columns} × {rows}"));
            return Err(WeightError::Shape { name: name.to_owned(), found, expected });
        }
        Ok((tensor, self.bytes(tensor)?))
    }

    fn vector(&self, name: &str, length: usize) -> Result<Vec<f32>, WeightError> {
        let (tensor, bytes) = self.shaped(name, 1, length)?;
        let values: Vec<f32> = match tensor.ty {
            QuantType::F32 => bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect(),
            QuantType::F16 => bytes.as_chunks().0.iter().map(|bytes| f16::from_le_bytes(*bytes).to_f32()).collect(),
            QuantType::BF16 => bytes.as_chunks().0.iter().map(|bytes| bf16::from_le_bytes(*bytes).to_f32()).collect(),
            ty => return Err(WeightError::Type { name: name.to_owned(), ty, takes: "F32, F16 or BF16" }),
        };
        if values.len() != length {
            let (found, expected) = (format!("{} values", values.len()), format!("{length} values"));
            return Err(WeightError::Shape { name: name.to_owned(), found, expected });
        }
        Ok(values)
    }

    fn scalar(&self, name: &str) -> Result<f32, WeightError> {
        let (tensor, bytes) = self.shaped(name, 1, 1)?;
        match (tensor.ty, bytes.as_ref()) {
            (QuantType::F32, &[a, b, c, d]) => Ok(f32::from_le_bytes([a, b, c, d])),
            (QuantType::F16, &[a, b]) => Ok(f16::from_le_bytes([a, b]).to_f32()),
            (QuantType::BF16, &[a, b]) => Ok(bf16::from_le_bytes([a, b]).to_f32()),
            (ty, _) => Err(WeightError::Type { name: name.to_owned(), ty, takes: "F32, F16 or BF16" }),
        }
    }

    /// What the weights of a packed matrix are multiplied with: a layer of `bitlinear` divides by its scale.
    fn packed_scale(&self, name: &str) -> Result<f32, WeightError> {
        let scale = self.scalar(&name.replace(".weight", ".weight_scale"))?;
        match self.model.metadata.get(LINEAR_CLASS) {
            Some(MetaValue::Text(class)) if class == "autobitlinear" => Ok(scale),
            Some(MetaValue::Text(class)) if class == "bitlinear" => Ok(1.0 / scale),
            _ => Err(ConfigError::Missing(LINEAR_CLASS.to_owned()).into()),
        }
    }

    fn dense(&self, name: &str, rows: usize, columns: usize) -> Result<DenseMatrix, WeightError> {
        let (tensor, bytes) = self.shaped(name, rows, columns)?;
        let ty = match tensor.ty {
            QuantType::F32 => DenseType::F32,
            QuantType::F16 => DenseType::F16,
            QuantType::BF16 => DenseType::Bf16,
            QuantType::Q8_0 => DenseType::Q8_0,
            ty => return Err(WeightError::Type { name: name.to_owned(), ty, takes: "F32, F16, BF16 or Q8_0" }),
        };
        DenseMatrix::new(bytes, ty, rows, columns).map_err(|error| WeightError::Dense { name: name.to_owned(), error })
    }

    /// The scale of a matrix of `TL1` or `TL2`: a tensor of its own, or where files without one have it, in the last 32 bytes.
    fn tiled_scale(&self, name: &str, tensor: &Tensor, bytes: &Bytes) -> Result<f32, WeightError> {
        const TAIL: usize = 32;
        let scale = format!("{name}_scale");
        let in_tail =
            || bytes.len().checked_sub(TAIL).and_then(|start| bytes[start..].first_chunk()).map(|bytes| f32::from_le_bytes(*bytes));
        match self.find(&scale) {
            Ok(_) => self.scalar(&scale),
            Err(missing) => in_tail().filter(|_| tensor.ty.tensor_bytes(tensor.shape) == Some(tensor.bytes)).ok_or(missing),
        }
    }

    fn tiled(&self, kind: LookUp, tensor: &Tensor, bytes: &Bytes, rows: usize, columns: usize) -> Result<TernaryMatrix, WeightError> {
        let name = &tensor.name;
        let shape = self.options.tiles.iter().find(|shape| (shape.rows, shape.columns) == (rows, columns));
        let shape = shape.ok_or_else(|| WeightError::Untiled { name: name.clone(), ty: tensor.ty, rows, columns })?;
        let scale = self.tiled_scale(name, tensor, bytes)?;
        let wide = || if columns < NARROWEST { Err(MatrixError::Narrow { columns }) } else { Ok(()) };
        let matrix = wide().and_then(|()| TernaryMatrix::from_lookup(bytes, kind, shape.tiles, rows, columns, scale));
        matrix.map_err(|error| WeightError::Matrix { name: name.clone(), error })
    }

    fn linear(&self, name: &str, rows: usize, columns: usize) -> Result<QuantizedLinear, WeightError> {
        let (tensor, bytes) = self.shaped(name, rows, columns)?;
        let matrix = match tensor.ty {
            QuantType::I2_S => TernaryMatrix::from_i2_s(&bytes, rows, columns, self.options.layout),
            QuantType::TQ2_0 => TernaryMatrix::from_tq2_0(&bytes, rows, columns),
            QuantType::TQ1_0 => TernaryMatrix::from_tq1_0(&bytes, rows, columns),
            QuantType::HF_U2 => TernaryMatrix::from_huggingface(&bytes, rows, columns, self.packed_scale(name)?),
            QuantType::TL1 => Ok(self.tiled(LookUp::Tl1, tensor, &bytes, rows, columns)?),
            QuantType::TL2 => Ok(self.tiled(LookUp::Tl2, tensor, &bytes, rows, columns)?),
            ty => return Err(WeightError::Type { name: name.to_owned(), ty, takes: "I2_S, TL1, TL2, TQ1_0, TQ2_0 or HF_U2" }),
        };
        let matrix = matrix.map_err(|error| WeightError::Matrix { name: name.to_owned(), error })?;
        // Converters of 2024 kept the scale in a tensor of its own.
        let scale = name.replace(".weight", ".scale");
        let matrix = match self.find(&scale) {
            Ok(_) => {
                let factor = self.scalar(&scale)?;
                let scale = matrix.scale() * factor;
                matrix.with_scale(scale)
            }
            Err(_) => matrix,
        };
        Ok(QuantizedLinear::new(matrix, self.options.kernel))
    }

    fn layer(&self, i: usize, config: &Config) -> Result<Layer, WeightError> {
        let name = |part: &str| format!("blk.{i}.{part}.weight");
        let (embd, ff) = (config.n_embd, config.n_ff);
        Ok(Layer {
            attn_norm: self.vector(&name("attn_norm"), embd)?,
            q: self.linear(&name("attn_q"), config.q_width(), embd)?,
            k: self.linear(&name("attn_k"), config.kv_width(), embd)?,
            v: self.linear(&name("attn_v"), config.kv_width(), embd)?,
            attn_sub_norm: self.vector(&name("attn_sub_norm"), config.q_width())?,
            output: self.linear(&name("attn_output"), embd, config.q_width())?,
            ffn_norm: self.vector(&name("ffn_norm"), embd)?,
            gate: self.linear(&name("ffn_gate"), ff, embd)?,
            up: self.linear(&name("ffn_up"), ff, embd)?,
            ffn_sub_norm: self.vector(&name("ffn_sub_norm"), ff)?,
            down: self.linear(&name("ffn_down"), embd, ff)?,
        })
    }
}
