// Keys and values in 16 bits.
alias Kept = u32;

fn kept(x: vec2<f32>) -> Kept {
    return pack2x16float(x);
}

fn held(x: Kept) -> vec2<f32> {
    return unpack2x16float(x);
}
