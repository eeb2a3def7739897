//! The signal of an instruction that the processor does not know, for tests on Linux: tile instructions are carried out on the registers
//! of the thread that it came from and stepped over; anything else, and what a processor with AMX would refuse, ends the program as it does
//! without this.

use super::instruction::{Address, Instruction, decode};
use super::unit::{Counts, Fault, Unit};
use kernels::{AmxError, Kernel};
use std::arch::asm;
use std::cell::RefCell;
use std::sync::Once;

thread_local! {
    static UNIT: RefCell<Unit> = const { RefCell::new(Unit::new()) };
}

/// The kernel with emulated instructions, from now on and for all threads.
pub fn amx_int8_emulated() -> Result<Kernel, AmxError> {
    catch();
    // SAFETY: the handler carries out the instructions that are named there, for every thread, and stays.
    unsafe { Kernel::amx_int8_assumed() }
}

/// What this thread's instructions did so far.
pub fn counts() -> Counts {
    UNIT.with_borrow(Unit::counts)
}

/// What `run` gives while products of this thread are wrong in one bit.
pub fn with_wrong_products<T>(run: impl FnOnce() -> T) -> T {
    UNIT.with_borrow_mut(|unit| unit.broken = true);
    let result = run();
    UNIT.with_borrow_mut(|unit| unit.broken = false);
    result
}

/// What ends a program.
#[derive(Clone, Copy, Debug)]
pub enum Misuse {
    /// An instruction that is no tile's.
    Unknown,
    /// A tile instruction that the kernel does not use.
    Unused,
    /// A product without a configuration.
    Unconfigured,
}

/// Does so.
pub fn misuse(misuse: Misuse) {
    catch();
    // SAFETY: each of them ends the program.
    unsafe {
        match misuse {
            Misuse::Unknown => asm!("ud2"),
            Misuse::Unused => asm!("tilezero tmm0"),
            Misuse::Unconfigured => asm!("tdpbsud tmm0, tmm1, tmm2"),
        }
    }
}

fn catch() {
    static CAUGHT: Once = Once::new();
    CAUGHT.call_once(|| {
        // SAFETY: all zeros are a value of this structure: no flags, an empty mask.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction = on_illegal_instruction as extern "C" fn(_, _, _) as usize;
        action.sa_flags = libc::SA_SIGINFO;
        // SAFETY: the handler has the signature that SA_SIGINFO asks for, and stays for as long as the program.
        let set = unsafe { libc::sigaction(libc::SIGILL, &raw const action, std::ptr::null_mut()) };
        assert_eq!(set, 0, "no handler of SIGILL");
    });
}

/// Runs on the thread that executed the instruction, in between two of its instructions: none of its own code holds `UNIT` there, for what
/// holds it executes no tile instruction.
extern "C" fn on_illegal_instruction(_: libc::c_int, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the third argument of such a handler is this structure, which belongs to it until it returns.
    let registers = unsafe { &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs };
    let place = registers[libc::REG_RIP as usize] as usize as *const u8;
    // SAFETY: the processor has just read the instruction there; `decode` asks for no byte behind it.
    let bytes = (0..15).map(|i| unsafe { place.add(i).read() });
    let done = match decode(bytes) {
        Some((instruction, length)) => UNIT.with_borrow_mut(|unit| carry_out(unit, instruction, registers)).map(|()| length),
        None => Err(Fault::Undefined("an instruction that the kernel does not use")),
    };
    match done {
        Ok(length) => registers[libc::REG_RIP as usize] += length as i64,
        Err(fault) => {
            let (Fault::Undefined(why) | Fault::Protection(why)) = fault;
            for text in ["not emulated: ", why, "\n"] {
                // SAFETY: the bytes are there; of what may be called here this is what writes.
                unsafe { libc::write(libc::STDERR_FILENO, text.as_ptr().cast(), text.len()) };
            }
            // SAFETY: what happens without a handler, when the instruction is executed once more.
            unsafe { libc::signal(libc::SIGILL, libc::SIG_DFL) };
        }
    }
}

fn carry_out(unit: &mut Unit, instruction: Instruction, registers: &[i64]) -> Result<(), Fault> {
    match instruction {
        Instruction::Configure(address) => {
            let mut memory = [0; 64];
            read(start(address, registers), &mut memory);
            unit.configure(&memory)
        }
        Instruction::Release => {
            unit.release();
            Ok(())
        }
        Instruction::Load(tile, address) => {
            unit.load(tile, |row, bytes| read(start(address, registers).wrapping_add(row.wrapping_mul(stride(address, registers))), bytes))
        }
        Instruction::Store(address, tile) => unit
            .store(tile, |row, bytes| write(start(address, registers).wrapping_add(row.wrapping_mul(stride(address, registers))), bytes)),
        Instruction::Multiply(sums, signed, unsigned) => unit.multiply(sums, signed, unsigned),
    }
}

/// The register of a number.
fn register(number: u8, registers: &[i64]) -> usize {
    use libc::{REG_R8, REG_R9, REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};
    use libc::{REG_RAX, REG_RBP, REG_RBX, REG_RCX, REG_RDI, REG_RDX, REG_RSI, REG_RSP};
    let order = [
        REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI, REG_R8, REG_R9, REG_R10, REG_R11, REG_R12, REG_R13,
        REG_R14, REG_R15,
    ];
    registers[order[usize::from(number)] as usize] as usize
}

/// Where the first row is. The index is none of it: it says how far the rows are apart.
fn start(address: Address, registers: &[i64]) -> usize {
    register(address.base, registers).wrapping_add(address.displacement as isize as usize)
}

fn stride(address: Address, registers: &[i64]) -> usize {
    address.index.map_or(0, |(number, scale)| register(number, registers) << scale)
}

fn read(start: usize, bytes: &mut [u8]) {
    // SAFETY: the code under test reads these bytes where the processor has the instruction: if they are not its own, that is what is found.
    unsafe { (start as *const u8).copy_to_nonoverlapping(bytes.as_mut_ptr(), bytes.len()) };
}

fn write(start: usize, bytes: &[u8]) {
    // SAFETY: as above, and writes them.
    unsafe { (start as *mut u8).copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
}
