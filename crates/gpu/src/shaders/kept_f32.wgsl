// Keys and values in 32 bits.
alias Kept = vec2<f32>;

fn kept(x: vec2<f32>) -> Kept {
    return x;
}

fn held(x: Kept) -> vec2<f32> {
    return x;
}
