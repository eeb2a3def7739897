//! The tensors of a model.

use crate::attention::{MAX_GROUP, MAX_HEAD};
use crate::config::{Config, ConfigError};
use bytes::Bytes;
use footprint::bitnet::Head as HeadType;
use half::{bf16, f16};
use kernels::{DenseError, DenseMatrix, DenseType, Kernel, Layout, MatrixError, QuantizedLinear, TernaryMatrix};
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
pub struct LoadOptions {
    /// How its `I2_S` tensors interleave their codes.
    pub layout: Layout,
    /// How the head is kept.
    pub head: HeadType,
    /// What computes.
    pub kernel: Kernel,
}

impl Default for LoadOptions {
    /// The layout of almost all files, the head as it is, the fastest kernel of this processor.
    fn default() -> Self {
        Self { layout: Layout::default(), head: HeadType::default(), kernel: Kernel::best() }
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
    pub fn load(model: &Model, files: &[Bytes], options: &LoadOptions) -> Result<Self, WeightError> {
        let config = Config::of(model)?;
        let group = config.n_head / config.n_head_kv;
        if config.head_dim > MAX_HEAD || group > MAX_GROUP {
            return Err(WeightError::Heads { head_dim: config.head_dim, group });
        }
        let mut source = Source { model, files, options, copied: 0 };
        let embedding = source.dense("token_embd.weight", config.n_vocab, config.n_embd)?;
        let layers = (0..config.n_layer).map(|i| source.layer(i, &config)).collect::<Result<_, _>>()?;
        let output_norm = source.vector("output_norm.weight", config.n_embd)?;
        let own = source.find("output.weight").is_ok();
        let head = if own { Some(source.dense("output.weight", config.n_vocab, config.n_embd)?) } else { None };
        let head = match options.head {
            HeadType::Q8_0 if head.as_ref().unwrap_or(&embedding).ty() != DenseType::Q8_0 => {
                let name = if own { "output.weight" } else { "token_embd.weight" };
                let smaller = head.as_ref().unwrap_or(&embedding).to_q8_0();
                let smaller = smaller.map_err(|error| WeightError::Dense { name: name.into(), error })?;
                source.copied += smaller.bytes() as u64;
                Some(smaller)
            }
            _ => head,
        };
        let copied = source.copied;
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
        let of = |layer: &Layer| -> usize {
            let linear = [&layer.q, &layer.k, &layer.v, &layer.output, &layer.gate, &layer.up, &layer.down];
            linear.into_iter().map(|linear| linear.weights().code_bytes()).sum()
        };
        self.layers.iter().map(of).sum()
    }

    /// The output head.
    pub fn head(&self) -> &DenseMatrix {
        self.head.as_ref().unwrap_or(&self.embedding)
    }
}

struct Source<'a> {
    model: &'a Model,
    files: &'a [Bytes],
    options: &'a LoadOptions,
    copied: u64,
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

    fn vector(&mut self, name: &str, length: usize) -> Result<Vec<f32>, WeightError> {
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
        self.copied += (length * size_of::<f32>()) as u64;
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

    fn linear(&mut self, name: &str, rows: usize, columns: usize) -> Result<QuantizedLinear, WeightError> {
        let (tensor, bytes) = self.shaped(name, rows, columns)?;
        let matrix = match tensor.ty {
            QuantType::I2_S => TernaryMatrix::from_i2_s(&bytes, rows, columns, self.options.layout),
            QuantType::TQ2_0 => TernaryMatrix::from_tq2_0(&bytes, rows, columns),
            QuantType::TQ1_0 => TernaryMatrix::from_tq1_0(&bytes, rows, columns),
            QuantType::HF_U2 => TernaryMatrix::from_huggingface(&bytes, rows, columns, self.packed_scale(name)?),
            ty => return Err(WeightError::Type { name: name.to_owned(), ty, takes: "I2_S, TQ1_0, TQ2_0 or HF_U2" }),
        };
        let matrix = matrix.map_err(|error| WeightError::Matrix { name: name.to_owned(), error })?;
        self.copied += matrix.copied_bytes() as u64;
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

    fn layer(&mut self, i: usize, config: &Config) -> Result<Layer, WeightError> {
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
