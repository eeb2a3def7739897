// Integers of 8 bits, sixteen to a chunk; behind all of a row's, a scale in 16 bits for each two chunks.

fn product(first: u32, chunk: u32, used: u32) -> f32 {
    let w = weights[first + chunk];
    let sum = dot(vec4<f32>(unpack4xI8(w.x)), token[4u * chunk]) + dot(vec4<f32>(unpack4xI8(w.y)), token[4u * chunk + 1u])
        + dot(vec4<f32>(unpack4xI8(w.z)), token[4u * chunk + 2u]) + dot(vec4<f32>(unpack4xI8(w.w)), token[4u * chunk + 3u]);
    let block = chunk / 2u;
    let scales = unpack2x16float(weights[first + used + block / 8u][block / 2u % 4u]);
    return scales[block % 2u] * sum;
}
