// Heads, and how their keys and values are kept: put before the kernels of attention, after the type of what is kept.

// Query heads, key heads, width of a head (even).
override HEADS: u32;
override KEY_HEADS: u32;
override HEAD: u32;

@group(0) @binding(1) var<storage, read_write> queries: array<f32>;
// Position by position, key head by key head, two elements at a time.
@group(0) @binding(2) var<storage, read_write> kept_keys: array<Kept>;
@group(0) @binding(3) var<storage, read_write> kept_values: array<Kept>;

// Where a head of a position begins.
fn kept_at(position: u32, key_head: u32) -> u32 {
    return (position * KEY_HEADS + key_head) * (HEAD / 2u);
}
