//! NVRTC: CUDA C++ to what a driver loads.

use cudarc::nvrtc::result::{self, NvrtcError};
use cudarc::nvrtc::sys;
use std::ffi::{CString, c_char, c_int, c_void};
use std::sync::OnceLock;

/// What is called of NVRTC.
const FUNCTIONS: [&str; 12] = [
    "nvrtcVersion",
    "nvrtcGetNumSupportedArchs",
    "nvrtcGetSupportedArchs",
    "nvrtcCreateProgram",
    "nvrtcCompileProgram",
    "nvrtcDestroyProgram",
    "nvrtcGetCUBINSize",
    "nvrtcGetCUBIN",
    "nvrtcGetPTXSize",
    "nvrtcGetPTX",
    "nvrtcGetProgramLogSize",
    "nvrtcGetProgramLog",
];

/// NVRTC's library, which is there and has all that is called.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Compiler(());

impl Compiler {
    /// Loads it, once in a process.
    pub(crate) fn load() -> Result<Self, String> {
        static LOADED: OnceLock<Result<Compiler, String>> = OnceLock::new();
        LOADED.get_or_init(Self::loaded).clone()
    }

    fn loaded() -> Result<Self, String> {
        // SAFETY: opens a library of one of NVRTC's names, as any program that uses it does; nothing of it is called.
        if !unsafe { sys::is_culib_present() } {
            let ways = "it comes with the CUDA toolkit, or with pip install nvidia-cuda-nvrtc-cu12 and its lib folder in LD_LIBRARY_PATH";
            return Err(format!("libnvrtc is not there; {ways}"));
        }
        // SAFETY: as above; it was there a moment ago, without which this would panic.
        let library = unsafe { sys::culib() };
        // SAFETY: the symbol is only looked for; it is not called as what it is read as.
        let lacking = FUNCTIONS.iter().find(|name| unsafe { library.get::<*const c_void>(name.as_bytes()) }.is_err());
        lacking.map_or(Ok(Self(())), |name| Err(format!("libnvrtc has no {name}: CUDA 11.2 or newer does")))
    }

    /// Its version, major and minor.
    pub(crate) fn version(self) -> (i32, i32) {
        let (mut major, mut minor): (c_int, c_int) = (0, 0);
        // SAFETY: the places for the answer are there.
        let said = unsafe { sys::nvrtcVersion(&raw mut major, &raw mut minor) };
        if said.result().is_ok() { (major, minor) } else { (0, 0) }
    }

    /// Compute capabilities that it compiles for, as 86 for 8.6.
    pub(crate) fn capabilities(self) -> Vec<u32> {
        let mut count: c_int = 0;
        // SAFETY: the place for the answer is there.
        let said = unsafe { sys::nvrtcGetNumSupportedArchs(&raw mut count) };
        let mut known: Vec<c_int> = vec![0; usize::try_from(count).ok().filter(|_| said.result().is_ok()).unwrap_or(0)];
        // SAFETY: there is a place for as many as it just said it has.
        if known.is_empty() || unsafe { sys::nvrtcGetSupportedArchs(known.as_mut_ptr()) }.result().is_err() {
            return Vec::new();
        }
        known.into_iter().filter_map(|known| u32::try_from(known).ok()).collect()
    }

    /// Compiles a source: to machine code where an option says `sm_..`, else to PTX. What the compiler says against it where it refuses.
    pub(crate) fn compile(self, source: &str, options: &[String]) -> Result<Vec<u8>, String> {
        let broken = || "a zero in what is compiled".to_owned();
        let source = CString::new(source).map_err(|_| broken())?;
        if options.iter().any(|option| option.contains('\0')) {
            return Err(broken());
        }
        let program = result::create_program(&source, Some(c"kernels.cu")).map_err(said)?;
        let compiled = compiled(program, options);
        // SAFETY: created above, and used by nobody after this.
        let _ = unsafe { result::destroy_program(program) };
        compiled
    }
}

fn said(error: NvrtcError) -> String {
    format!("{:?}", error.0)
}

/// `program` was created and is not destroyed yet.
fn compiled(program: sys::nvrtcProgram, options: &[String]) -> Result<Vec<u8>, String> {
    // SAFETY: the program is alive, and the options hold no zeros.
    if let Err(error) = unsafe { result::compile_program(program, options) } {
        // SAFETY: the program is alive.
        let log = unsafe { result::get_program_log(program) }.unwrap_or_default();
        let log: Vec<u8> = log.into_iter().map(c_char::cast_unsigned).take_while(|&byte| byte != 0).collect();
        return Err(format!("{}: {}", said(error), String::from_utf8_lossy(&log).trim()));
    }
    let mut size = 0;
    // SAFETY: the program is alive and compiled, and the place for the answer is there.
    unsafe { sys::nvrtcGetCUBINSize(program, &raw mut size) }.result().map_err(said)?;
    if size > 0 {
        let mut code: Vec<c_char> = vec![0; size];
        // SAFETY: there is a place for as many bytes as it just said it has.
        unsafe { sys::nvrtcGetCUBIN(program, code.as_mut_ptr()) }.result().map_err(said)?;
        return Ok(code.into_iter().map(c_char::cast_unsigned).collect());
    }
    // SAFETY: the program is alive and compiled.
    let code = unsafe { result::get_ptx(program) }.map_err(said)?;
    Ok(code.into_iter().map(c_char::cast_unsigned).collect())
}
