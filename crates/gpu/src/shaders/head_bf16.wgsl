// The upper halves of floats: eight to a chunk.

fn two(word: u32) -> vec2<f32> {
    return vec2<f32>(bitcast<f32>(word << 16u), bitcast<f32>(word & 0xFFFF0000u));
}

fn product(first: u32, chunk: u32, used: u32) -> f32 {
    let w = weights[first + chunk];
    return dot(vec4<f32>(two(w.x), two(w.y)), token[2u * chunk]) + dot(vec4<f32>(two(w.z), two(w.w)), token[2u * chunk + 1u]);
}
