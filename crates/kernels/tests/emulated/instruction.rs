//! Machine code of the tile instructions that the kernel uses, and of no others (Intel 64 and IA-32 Architectures Software Developer's Manual,
//! volume 2: section 2.3 on VEX prefixes, and the page of each instruction).

/// An address: registers by number, 0 (RAX) to 15 (R15).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// The register that it starts from.
    pub base: u8,
    /// A register and the power of two that it is multiplied with.
    pub index: Option<(u8, u8)>,
    /// What is added.
    pub displacement: i32,
}

/// An instruction. Tiles are numbers from 0 to 7.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Instruction {
    /// LDTILECFG.
    Configure(Address),
    /// TILERELEASE.
    Release,
    /// TILELOADD.
    Load(u8, Address),
    /// TILESTORED.
    Store(Address, u8),
    /// TDPBSUD: sums, signed bytes, unsigned bytes.
    Multiply(u8, u8, u8),
}

/// The instruction that begins with the first of these bytes, and its length. `None` for all that is not in the list above or that the
/// processor would refuse whatever its tiles are.
pub fn decode(mut bytes: impl Iterator<Item = u8>) -> Option<(Instruction, usize)> {
    let mut length = 0;
    let mut next = || {
        length += 1;
        bytes.next()
    };
    // VEX in three bytes: the map 0F 38, W 0, vectors of 128 bits.
    let (0xc4, registers, operand, opcode, modrm) = (next()?, next()?, next()?, next()?, next()?) else { return None };
    if registers & 0x1f != 2 || operand & 0b1000_0100 != 0 {
        return None;
    }
    // Upper bits of the three fields of ModRM and SIB, and a fourth operand; all are stored inverted.
    let (upper_reg, upper_index, upper_base) = (!registers >> 7 & 1, !registers >> 6 & 1, !registers >> 5 & 1);
    let (fourth, prefix) = (!operand >> 3 & 15, operand & 3);
    let (mode, reg, rm) = (modrm >> 6, modrm >> 3 & 7, modrm & 7);
    let is_memory = mode != 3;
    let mut address = || {
        let (base, index) = match rm {
            4 => {
                let sib = next()?;
                let index = upper_index << 3 | sib >> 3 & 7;
                (sib & 7, (index != 4).then_some((index, sib >> 6)))
            }
            _ => (rm, None),
        };
        // Without a base, or relative to the next instruction.
        if mode == 0 && base == 5 {
            return None;
        }
        let displacement = match mode {
            0 => 0,
            1 => i32::from(next()? as i8),
            _ => i32::from_le_bytes([next()?, next()?, next()?, next()?]),
        };
        Some(Address { base: upper_base << 3 | base, index, displacement })
    };
    let instruction = match (opcode, prefix) {
        (0x49, 0) if is_memory && fourth == 0 && reg == 0 && upper_reg == 0 => Instruction::Configure(address()?),
        (0x49, 0) if modrm == 0xc0 && fourth == 0 && upper_reg == 0 && upper_base == 0 => Instruction::Release,
        // Both need the byte of an index.
        (0x4b, 3) if is_memory && fourth == 0 && upper_reg == 0 && rm == 4 => Instruction::Load(reg, address()?),
        (0x4b, 2) if is_memory && fourth == 0 && upper_reg == 0 && rm == 4 => Instruction::Store(address()?, reg),
        (0x5e, 2) if !is_memory && fourth < 8 && upper_reg == 0 && upper_base == 0 => Instruction::Multiply(reg, rm, fourth),
        _ => return None,
    };
    Some((instruction, length))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What GNU as 2.40 makes of the lines beside it.
    #[test]
    fn machine_code_is_that_of_an_assembler() {
        let at = |base, index, displacement| Address { base, index, displacement };
        let cases: [(&[u8], Option<Instruction>); 20] = [
            // ldtilecfg [rax]; [r13+16]; [rsp]
            (&[0xc4, 0xe2, 0x78, 0x49, 0x00], Some(Instruction::Configure(at(0, None, 0)))),
            (&[0xc4, 0xc2, 0x78, 0x49, 0x45, 0x10], Some(Instruction::Configure(at(13, None, 16)))),
            (&[0xc4, 0xe2, 0x78, 0x49, 0x04, 0x24], Some(Instruction::Configure(at(4, None, 0)))),
            // tilerelease
            (&[0xc4, 0xe2, 0x78, 0x49, 0xc0], Some(Instruction::Release)),
            // tileloadd tmm0, [rax+rbx]; tmm7, [r15+r12*4+1024]; tmm3, [rbp+r9+64]; tmm3, [rsi]
            (&[0xc4, 0xe2, 0x7b, 0x4b, 0x04, 0x18], Some(Instruction::Load(0, at(0, Some((3, 0)), 0)))),
            (&[0xc4, 0x82, 0x7b, 0x4b, 0xbc, 0xa7, 0, 4, 0, 0], Some(Instruction::Load(7, at(15, Some((12, 2)), 1024)))),
            (&[0xc4, 0xa2, 0x7b, 0x4b, 0x5c, 0x0d, 0x40], Some(Instruction::Load(3, at(5, Some((9, 0)), 64)))),
            (&[0xc4, 0xe2, 0x7b, 0x4b, 0x1c, 0x26], Some(Instruction::Load(3, at(6, None, 0)))),
            // tilestored [rdi+rcx+192], tmm5
            (&[0xc4, 0xe2, 0x7a, 0x4b, 0xac, 0x0f, 0xc0, 0, 0, 0], Some(Instruction::Store(at(7, Some((1, 0)), 192), 5))),
            // tdpbsud tmm0, tmm4, tmm5; tmm3, tmm2, tmm7
            (&[0xc4, 0xe2, 0x52, 0x5e, 0xc4], Some(Instruction::Multiply(0, 4, 5))),
            (&[0xc4, 0xe2, 0x42, 0x5e, 0xda], Some(Instruction::Multiply(3, 2, 7))),
            // ud2; tilezero tmm1; sttilecfg [rax]; tileloaddt1 tmm0, [rax+rbx]; tdpbusd, tdpbssd and tdpbuud tmm0, tmm4, tmm5
            (&[0x0f, 0x0b], None),
            (&[0xc4, 0xe2, 0x7b, 0x49, 0xc8], None),
            (&[0xc4, 0xe2, 0x79, 0x49, 0x00], None),
            (&[0xc4, 0xe2, 0x79, 0x4b, 0x04, 0x18], None),
            (&[0xc4, 0xe2, 0x51, 0x5e, 0xc4], None),
            (&[0xc4, 0xe2, 0x53, 0x5e, 0xc4], None),
            (&[0xc4, 0xe2, 0x50, 0x5e, 0xc4], None),
            // ldtilecfg [rip+4]; tileloadd tmm0, [rax+rbx] without the byte of an index
            (&[0xc4, 0xe2, 0x78, 0x49, 0x05, 4, 0, 0, 0], None),
            (&[0xc4, 0xe2, 0x7b, 0x4b, 0x00], None),
        ];
        for (bytes, expected) in cases {
            let decoded = decode(bytes.iter().copied().chain([0xcc; 15]));
            assert_eq!(decoded, expected.map(|instruction| (instruction, bytes.len())), "{bytes:02x?}");
            // Cut short it is none.
            assert!((0..bytes.len()).all(|length| decode(bytes[..length].iter().copied()).is_none()), "{bytes:02x?}");
        }
    }
}
