//! Headers to what is loaded beside a model.

use super::error::DescribeError;
use super::keys::Keys;
use super::{files, scalars};
use crate::gguf::Gguf;
use spec::{Attachment, AttachmentKind};

/// Reads the header of a file that must be of this kind.
///
/// # Errors
/// Another kind of file, or one without tensors.
pub fn attachment(file: &Gguf, wanted: AttachmentKind) -> Result<Attachment, DescribeError> {
    let keys = Keys::new(&file.metadata)?;
    let found = kind(&keys)?;
    if found != Some(wanted) {
        let found = found.map_or_else(|| format!("a model of architecture {}", keys.architecture), |kind| format!("a {kind}"));
        return Err(DescribeError::NotAnAttachment { wanted, found });
    }
    let tensors = files::tensors(std::slice::from_ref(file))?;
    if tensors.is_empty() {
        return Err(DescribeError::NoTensors);
    }
    Ok(Attachment { kind: wanted, tensors, metadata: scalars(&file.metadata), architecture: keys.architecture })
}

/// What a file says it is, if it is no model. Adapters state it as their type; older projectors and all control vectors as
/// their architecture (`src/llama-adapter.cpp`, `tools/mtmd/clip.cpp`, `common/common.cpp`, `common_control_vector_load`).
pub(super) fn kind(keys: &Keys<'_>) -> Result<Option<AttachmentKind>, DescribeError> {
    Ok(match (keys.text("general.type")?, keys.architecture.as_str()) {
        (Some("adapter"), _) => Some(AttachmentKind::Lora),
        (Some("mmproj"), _) | (_, "clip") => Some(AttachmentKind::Projector),
        (_, "controlvector") => Some(AttachmentKind::ControlVector),
        _ => None,
    })
}
