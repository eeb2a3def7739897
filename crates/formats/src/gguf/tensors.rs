//! The tensor table: every size computed, every offset checked.

use super::MAX_TENSOR_NAME;
use super::error::{GgufError, GgufErrorKind};
use super::metadata::{Metadata, Value};
use crate::reader::Reader;
use spec::model::MetaValue;
use spec::{Bytes, QuantType};
use std::collections::BTreeSet;

/// Fewest bytes of an entry: an empty name, no dimension, type and offset.
pub(super) const MIN_ENTRY: u64 = 8 + 4 + 4 + 8;

/// One tensor of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// Name.
    pub name: String,
    /// Type of its elements.
    pub ty: QuantType,
    /// Extents, fastest first; absent dimensions are 1.
    pub shape: [u64; 4],
    /// Size of its data, without padding.
    pub bytes: Bytes,
    /// Where its data begins, from the start of the data section.
    pub offset: Bytes,
}

/// The tensor table of a file.
pub(super) struct Tensors {
    pub(super) table: Vec<TensorInfo>,
    pub(super) data_offset: Bytes,
}

/// An entry as it stands in the file.
struct Entry<'a> {
    /// Where the entry stands.
    at: u64,
    name: &'a str,
    shape: [u64; 4],
    type_id: u32,
    offset: u64,
}

impl Entry<'_> {
    fn error(&self, kind: GgufErrorKind) -> GgufError {
        GgufError { offset: self.at, kind }
    }
    fn elements(&self) -> Option<u64> {
        let product = self.shape.iter().try_fold(1_u64, |product, &extent| product.checked_mul(extent))?;
        // ggml counts in signed 64 bits.
        i64::try_from(product).is_ok().then_some(product)
    }
}

pub(super) fn read(reader: &mut Reader<'_>, count: u64, metadata: &Metadata) -> Result<Tensors, GgufError> {
    let mut entries: Vec<Entry<'_>> = Vec::new();
    let mut names = BTreeSet::new();
    for _ in 0..count {
        let entry = entry(reader)?;
        if !names.insert(entry.name) {
            return Err(entry.error(GgufErrorKind::DuplicateTensor { name: entry.name.to_owned() }));
        }
        entries.push(entry);
    }
    let alignment = metadata.alignment;
    let data_offset = Bytes::new(reader.offset()).pad_to(alignment);
    let fork = Fork::of(metadata);
    let file_end = reader.offset() + reader.left();
    let data_size = file_end.saturating_sub(data_offset.get());

    let mut table = Vec::with_capacity(entries.len());
    let mut end = 0_u64;
    for (i, entry) in entries.iter().enumerate() {
        let next = entries.get(i + 1).map_or(data_size, |next| next.offset);
        let room = next.checked_sub(entry.offset);
        let (ty, bytes) = typed(entry, fork, room, alignment)?;
        if entry.offset != end {
            let kind = GgufErrorKind::WrongOffset { name: entry.name.to_owned(), expected: end, stated: entry.offset };
            return Err(entry.error(kind));
        }
        let too_large = || entry.error(GgufErrorKind::ShapeTooLarge { name: entry.name.to_owned(), shape: entry.shape });
        let stop = end.checked_add(bytes.get()).ok_or_else(too_large)?;
        end = stop.checked_next_multiple_of(alignment).ok_or_else(too_large)?;
        let absolute = data_offset.get().checked_add(stop).ok_or_else(too_large)?;
        if absolute > file_end {
            let kind = GgufErrorKind::TensorPastEnd { name: entry.name.to_owned(), end: absolute, file_size: file_end };
            return Err(entry.error(kind));
        }
        table.push(TensorInfo { name: entry.name.to_owned(), ty, shape: entry.shape, bytes, offset: Bytes::new(entry.offset) });
    }
    Ok(Tensors { table, data_offset })
}

fn entry<'a>(reader: &mut Reader<'a>) -> Result<Entry<'a>, GgufError> {
    let at = reader.offset();
    let name = reader.text("tensor name", MAX_TENSOR_NAME)?;
    let dimensions = reader.u32("number of dimensions")?;
    let mut shape = [1; 4];
    if dimensions as usize > shape.len() {
        let kind = GgufErrorKind::TooManyDimensions { name: name.to_owned(), dimensions };
        return Err(GgufError { offset: at, kind });
    }
    for extent in shape.iter_mut().take(dimensions as usize) {
        *extent = reader.u64("extent")?;
    }
    let entry = Entry { at, name, shape, type_id: reader.u32("tensor type")?, offset: reader.u64("tensor offset")? };
    if entry.elements().is_none() {
        return Err(entry.error(GgufErrorKind::ShapeTooLarge { name: name.to_owned(), shape }));
    }
    Ok(entry)
}

fn size(entry: &Entry<'_>, ty: QuantType) -> Result<Bytes, GgufError> {
    let columns = entry.shape[0];
    let block = ty.block().weights;
    if !columns.is_multiple_of(block) {
        return Err(entry.error(GgufErrorKind::RaggedRow { name: entry.name.to_owned(), columns, block, ty }));
    }
    ty.tensor_bytes(entry.shape)
        .ok_or_else(|| entry.error(GgufErrorKind::ShapeTooLarge { name: entry.name.to_owned(), shape: entry.shape }))
}

/// The type and the size of an entry with `room` bytes up to the next one.
fn typed(entry: &Entry<'_>, fork: Fork, room: Option<u64>, alignment: u64) -> Result<(QuantType, Bytes), GgufError> {
    let id = entry.type_id;
    let fits = |bytes: Bytes| room.is_some() && bytes.get().checked_next_multiple_of(alignment) == room;
    let mainline = QuantType::from_id(id);
    if let Some(ty) = QuantType::from_bitnet_fork_id(id) {
        // The id alone decides nothing: 39 is MXFP4 in llama.cpp, the others were once types of llama.cpp. The room up to
        // the next tensor does; where neither type fills it, the architecture and the file type do.
        let sizes = fork_sizes(entry, ty);
        let fills = sizes.into_iter().flatten().find(|&bytes| fits(bytes));
        let mainline_fills = mainline.is_some_and(|ty| size(entry, ty).is_ok_and(fits));
        match (fills, sizes[0]) {
            (Some(bytes), _) if !mainline_fills || fork.architecture => return Ok((ty, bytes)),
            (None, Some(bytes)) if !mainline_fills && fork.is_meant(ty) => return Ok((ty, bytes)),
            _ => {}
        }
    }
    if let Some(ty) = mainline.or(QuantType::from_ik_fork_id(id)) {
        return Ok((ty, size(entry, ty)?));
    }
    let name = entry.name.to_owned();
    let was = match id {
        4 => Some("q4_2"),
        5 => Some("q4_3"),
        31 => Some("q4_0_4_4"),
        32 => Some("q4_0_4_8"),
        33 => Some("q4_0_8_8"),
        36 => Some("iq4_nl_4_4"),
        37 => Some("iq4_nl_4_8"),
        38 => Some("iq4_nl_8_8"),
        _ => None,
    };
    Err(entry.error(match was {
        Some(was) => GgufErrorKind::RemovedTensorType { name, was, id },
        None => GgufErrorKind::UnknownTensorType { name, id },
    }))
}

/// Sizes that a tensor of the fork may have in a file: with its tail of 32 bytes, and without it where the converter wrote the
/// scale as a tensor of its own, which then lies where the tail would (TL1, TL2).
fn fork_sizes(entry: &Entry<'_>, ty: QuantType) -> [Option<Bytes>; 2] {
    let whole = ty.tensor_bytes(entry.shape);
    let tailless = whole.filter(|_| matches!(ty, QuantType::TL1 | QuantType::TL2)).map(|bytes| bytes.saturating_sub(Bytes::new(32)));
    [whole, tailless]
}

/// Signs in the metadata that a file is one of the BitNet fork of llama.cpp.
#[derive(Clone, Copy, Debug)]
struct Fork {
    /// Its architecture is one that only the fork writes types of its own for.
    architecture: bool,
    /// `general.file_type`.
    file_type: Option<u64>,
}

impl Fork {
    fn of(metadata: &Metadata) -> Self {
        let scalar = |key: &str| match metadata.values.get(key) {
            Some(Value::Scalar(value)) => Some(value),
            _ => None,
        };
        let architecture = match scalar("general.architecture") {
            Some(MetaValue::Text(name)) => matches!(name.as_str(), "bitnet" | "bitnet-25" | "bitnet-b1.58"),
            _ => false,
        };
        let file_type = match scalar("general.file_type") {
            Some(MetaValue::Uint(id)) => Some(*id),
            _ => None,
        };
        Self { architecture, file_type }
    }

    /// True where the metadata says that an id stands for this type of the fork. File types of the fork:
    /// `LLAMA_FTYPE_MOSTLY_TL1` 38, `_TL2` 39, `_I2_S` 40.
    fn is_meant(self, ty: QuantType) -> bool {
        let file_type = match ty {
            QuantType::TL1 => Some(38),
            QuantType::TL2 => Some(39),
            QuantType::I2_S => Some(40),
            _ => None,
        };
        self.architecture || (file_type.is_some() && self.file_type == file_type)
    }
}
