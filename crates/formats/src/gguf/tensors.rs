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
    let fork = is_bitnet_fork(metadata);
    let file_end = reader.offset() + reader.left();
    let data_size = file_end.saturating_sub(data_offset.get());

    let mut table = Vec::with_capacity(entries.len());
    let mut end = 0_u64;
    for (i, entry) in entries.iter().enumerate() {
        let next = entries.get(i + 1).map_or(data_size, |next| next.offset);
        let room = next.checked_sub(entry.offset);
        let ty = tensor_type(entry, fork, room, alignment)?;
        let bytes = size(entry, ty)?;
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
    let [columns, rows @ ..] = entry.shape;
    let block = ty.block().weights;
    if !columns.is_multiple_of(block) {
        return Err(entry.error(GgufErrorKind::RaggedRow { name: entry.name.to_owned(), columns, block, ty }));
    }
    let row = ty.row_bytes(columns);
    let size = row.and_then(|row| rows.iter().try_fold(row, |bytes, &extent| bytes.checked_mul(extent)));
    size.ok_or_else(|| entry.error(GgufErrorKind::ShapeTooLarge { name: entry.name.to_owned(), shape: entry.shape }))
}

/// The type of an entry with `room` bytes up to the next one.
fn tensor_type(entry: &Entry<'_>, fork: bool, room: Option<u64>, alignment: u64) -> Result<QuantType, GgufError> {
    let id = entry.type_id;
    let name = || entry.name.to_owned();
    if let Some(ty) = bitnet_type(id) {
        let padded = |bytes: u64| bytes.checked_next_multiple_of(alignment);
        let fits = |bytes: Option<u64>| room.is_some() && bytes.and_then(padded) == room;
        // The id alone decides nothing: 39 is MXFP4 in llama.cpp, the others were once types of llama.cpp.
        let meant = match QuantType::from_id(id) {
            Some(mainline) => !fits(size(entry, mainline).ok().map(Bytes::get)) && (fork || fits(bitnet_bytes(entry, id))),
            None => fork || fits(bitnet_bytes(entry, id)),
        };
        if meant {
            return Err(entry.error(GgufErrorKind::BitNetType { name: name(), ty, id }));
        }
    }
    if let Some(ty) = QuantType::from_id(id) {
        return Ok(ty);
    }
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
        Some(was) => GgufErrorKind::RemovedTensorType { name: name(), was, id },
        None => GgufErrorKind::UnknownTensorType { name: name(), id },
    }))
}

/// Types of the BitNet fork of llama.cpp (`ggml/include/ggml.h` of the fork in microsoft/BitNet).
fn bitnet_type(id: u32) -> Option<&'static str> {
    match id {
        36 => Some("i2_s"),
        37 => Some("i8_s"),
        38 => Some("tl1"),
        39 => Some("tl2"),
        _ => None,
    }
}

/// Sizes of the fork's types: two bits per weight, or its mix of 5 bits per three weights and 4 per two; each with a tail
/// of 32 bytes that holds the scale (`ggml_nbytes` of `ggml/src/ggml.c` of the fork).
fn bitnet_bytes(entry: &Entry<'_>, id: u32) -> Option<u64> {
    let elements = entry.elements()?;
    let packed = match id {
        36 | 38 => elements / 4,
        37 => elements,
        39 => {
            let [columns, rows, ..] = entry.shape;
            let threes = columns.checked_sub(256)?.checked_mul(rows)? / 3 * 5 / 8;
            let twos = 256_u64.checked_mul(rows)? / 2 * 4 / 8;
            threes.checked_add(twos)?.checked_next_multiple_of(32)?
        }
        _ => return None,
    };
    packed.checked_add(32)
}

/// True where the architecture's name is one that only the fork writes types of its own for.
fn is_bitnet_fork(metadata: &Metadata) -> bool {
    let architecture = match metadata.values.get("general.architecture") {
        Some(Value::Scalar(MetaValue::Text(name))) => name.as_str(),
        _ => "",
    };
    matches!(architecture, "bitnet" | "bitnet-25" | "bitnet-b1.58")
}
