// Floats in 16 bits: eight to a chunk.

fn product(first: u32, chunk: u32, used: u32) -> f32 {
    let w = weights[first + chunk];
    return dot(vec4<f32>(unpack2x16float(w.x), unpack2x16float(w.y)), token[2u * chunk])
        + dot(vec4<f32>(unpack2x16float(w.z), unpack2x16float(w.w)), token[2u * chunk + 1u]);
}
