//! Memory of bytes that ends at a page which nobody can touch, for tests on Linux: what reads or writes beyond it ends the program, machine
//! code too.

use std::alloc::{GlobalAlloc, Layout, System};
use std::ptr::{null_mut, without_provenance_mut};

/// An allocator: the system's, but for buffers of bytes that hold a block of weights and more.
pub struct Fence;

/// Bytes of a page.
const PAGE: usize = 4096;

/// Whether it has a fence: bytes alone begin anywhere, and short ones are mostly text.
fn is_fenced(layout: Layout) -> bool {
    layout.align() == 1 && layout.size() >= 32
}

/// Pages in front of the fence.
fn pages(layout: Layout) -> usize {
    layout.size().next_multiple_of(PAGE)
}

// SAFETY: memory is the system's, or pages of its own that live until they are given back; the layout decides which, and is the same both times.
unsafe impl GlobalAlloc for Fence {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if !is_fenced(layout) {
            // SAFETY: as the caller promises.
            return unsafe { System.alloc(layout) };
        }
        let length = pages(layout) + PAGE;
        // SAFETY: new pages, of zeros, which nobody has.
        let start = unsafe { libc::mmap(null_mut(), length, libc::PROT_NONE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0) };
        if start == libc::MAP_FAILED {
            return null_mut();
        }
        // SAFETY: all of these pages but the last.
        if unsafe { libc::mprotect(start, pages(layout), libc::PROT_READ | libc::PROT_WRITE) } != 0 {
            return null_mut();
        }
        // SAFETY: within these pages; the buffer ends where the last one begins.
        unsafe { start.cast::<u8>().add(pages(layout) - layout.size()) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        if !is_fenced(layout) {
            // SAFETY: as the caller promises.
            return unsafe { System.dealloc(pointer, layout) };
        }
        let start = pointer.addr() & !(PAGE - 1);
        // SAFETY: the pages of `alloc`, of whose first this buffer has a byte. What cannot be given back is kept.
        unsafe { libc::munmap(without_provenance_mut(start), pages(layout) + PAGE) };
    }
}
