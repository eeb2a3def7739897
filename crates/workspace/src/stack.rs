//! Bytes of whole layers on a device: BitNet's norms, projections, keys and values, the output head, and what a batch of tokens is computed in.

use crate::arena::{Workspace, place};
use crate::head::Head;
use crate::kernel::{BATCH, Layer, values};
use spec::Bytes;

/// Bytes of what a kernel is told of each piece of a matrix.
pub const SHAPE: u64 = 32;

/// Layers of a transformer that lie on a device, all alike, and the output head behind them if it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stack {
    /// Layers.
    pub n_layer: u64,
    /// Width of the residual stream.
    pub n_embd: u64,
    /// Width between gate/up and down.
    pub n_ff: u64,
    /// Width of all queries of a token.
    pub q_width: u64,
    /// Width of all keys, and of all values, of a token.
    pub kv_width: u64,
    /// Width of a head.
    pub head_dim: u64,
    /// The output head, where logits are computed on the device as well.
    pub head: Option<Head>,
}

/// What of a device decides bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Device {
    /// Bytes at multiples of which parts of a buffer begin.
    pub alignment: u64,
    /// The largest piece of memory that a kernel can be given.
    pub largest: Bytes,
}

/// What a context of a stack is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Context {
    /// Tokens that it holds at most.
    pub n_ctx: u64,
    /// Tokens that are computed together.
    pub tokens: u64,
    /// Bytes of a kept element: 4 or 2.
    pub element: u64,
}

/// Memory of a stack on a device by what it is for, exact to the byte; each buffer may be filled up by the device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StackBytes {
    /// Codes of the projections, the output head, what kernels are told of their pieces, and norms.
    pub weights: Bytes,
    /// Keys and values of the whole context.
    pub kv_cache: Bytes,
    /// The arena of a batch, the table of rotary angles, logits with the token they come from, and where results are read from.
    pub compute: Bytes,
    /// Buffers that these are.
    pub buffers: u64,
}

/// Parts of one piece that everything is computed in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Behind {
    /// The arena of a batch, at the beginning.
    pub arena: Workspace,
    /// Where rotary angles begin.
    pub angles: u64,
    /// Where they end, and what logits are computed in begins.
    pub logits: u64,
}

impl StackBytes {
    /// Everything.
    pub fn total(&self) -> Bytes {
        self.weights + self.kv_cache + self.compute
    }
}

impl Layer {
    /// Bytes that its weights take on a device, and pieces they lie in: rows are filled up to 128 weights of two bits, and no piece is
    /// beyond `largest`. `None` where a row is, or where all is beyond 2⁶⁴.
    ///
    /// ```
    /// use spec::Bytes;
    /// let layer = workspace::Layer::new(6912, 2560).unwrap();
    /// assert_eq!(layer.on_device(Bytes::from_mib(128)), Some((Bytes::new(6912 * 640), 1)));
    /// assert_eq!(layer.on_device(Bytes::from_mib(4)), Some((Bytes::new(6912 * 640), 2)));
    /// ```
    pub fn on_device(self, largest: Bytes) -> Option<(Bytes, u64)> {
        let row = values(self, 1)? / 4;
        let rows = Some(largest.get() / row).filter(|&rows| rows > 0)?;
        Some((Bytes::new(self.rows().checked_mul(row)?), self.rows().div_ceil(rows)))
    }
}

impl Stack {
    /// The projections of a layer: queries, keys, values, output; gate, up, down. `None` where a width cannot be.
    pub fn projections(&self) -> Option<[Layer; 7]> {
        let layer = |rows, columns| Layer::new(rows, columns).ok();
        let (embd, q, kv, ff) = (self.n_embd, self.q_width, self.kv_width, self.n_ff);
        Some([layer(q, embd)?, layer(kv, embd)?, layer(kv, embd)?, layer(embd, q)?, layer(ff, embd)?, layer(ff, embd)?, layer(embd, ff)?])
    }

    /// Where the norms of a layer lie in its buffer: before attention, before its output, before gate and up, before down. `None` beyond 2⁶⁴.
    pub fn norms(&self, alignment: u64) -> Option<Workspace> {
        let names = ["attn_norm", "attn_sub_norm", "ffn_norm", "ffn_sub_norm"];
        let widths = [self.n_embd, self.q_width, self.n_embd, self.n_ff];
        let mut regions = Vec::with_capacity(names.len());
        let mut total = 0;
        for (name, width) in names.into_iter().zip(widths) {
            total = place(&mut regions, total, [(name, width.checked_mul(4)?)], alignment)?;
        }
        Some(Workspace::from_regions(regions, total))
    }

    /// The arena of a batch, which serves all layers one after the other: gate and up lie where queries, keys, values and what attention
    /// gives lay before. `None` beyond 2⁶⁴ bytes.
    ///
    /// ```
    /// let stack = workspace::Stack { n_layer: 30, n_embd: 2560, n_ff: 6912, q_width: 2560, kv_width: 640, head_dim: 128, head: None };
    /// let arena = stack.arena(1, 32).unwrap();
    /// assert_eq!(arena.region("queries").unwrap().offset, arena.region("gate").unwrap().offset);
    /// assert_eq!(arena.total().get(), 32 + 4 * 2560 + 6912 + 32 + 4 * 2 * 6912);
    /// ```
    pub fn arena(&self, tokens: u64, alignment: u64) -> Option<Workspace> {
        let floats = |width: u64| tokens.checked_mul(width)?.checked_mul(4);
        let (q, kv, ff) = (floats(self.q_width)?, floats(self.kv_width)?, floats(self.n_ff)?);
        let widest = self.n_embd.max(self.n_ff).max(self.q_width);
        let integers = values(Layer::new(1, widest).ok()?, tokens)?;
        let mut regions = Vec::new();
        let always = [("batch", BATCH), ("stream", floats(self.n_embd)?), ("activations", integers), ("scales", tokens.checked_mul(8)?)];
        let from = place(&mut regions, 0, always, alignment)?;
        let attention = place(&mut regions, from, [("queries", q), ("keys", kv), ("values", kv), ("mixed", q)], alignment)?;
        let feed_forward = place(&mut regions, from, [("gate", ff), ("up", ff)], alignment)?;
        Some(Workspace::from_regions(regions, attention.max(feed_forward)))
    }

    /// Tokens that are computed together of a batch of so many: logits are those of one token, so that a head alone computes one.
    pub fn together(&self, tokens: u64) -> u64 {
        if self.n_layer == 0 { tokens.min(1) } else { tokens }
    }

    /// Everything that it takes with a context. `None` where a row of weights is beyond the device's largest piece, or where all is beyond
    /// 2⁶⁴.
    pub fn bytes(&self, device: Device, context: Context) -> Option<StackBytes> {
        let tokens = self.together(context.tokens);
        let mut weights = self.norms(device.alignment)?.total().get();
        let mut buffers = 1_u64;
        for projection in self.projections()? {
            let (bytes, pieces) = projection.on_device(device.largest)?;
            weights = weights.checked_add(bytes.get())?.checked_add(pieces.checked_mul(SHAPE)?)?;
            buffers = buffers.checked_add(pieces.checked_mul(2)?)?;
        }
        let kept = context.n_ctx.checked_mul(self.kv_width)?.checked_mul(context.element)?.checked_mul(2)?;
        let arena = self.arena(tokens, device.alignment)?.total().get();
        let results = tokens.checked_mul(self.n_embd)?.checked_mul(4)?;
        let compute = arena.checked_add(self.angles(context.n_ctx)?)?.checked_add(results)?;
        // Keys and values of each layer; arena, angles, results.
        let buffers = buffers.checked_add(2)?.checked_mul(self.n_layer)?.checked_add(3)?;
        let head = self.head.map_or(Some(StackBytes::default()), |head| head.bytes(device))?;
        Some(StackBytes {
            weights: Bytes::new(weights.checked_mul(self.n_layer)?.checked_add(head.weights.get())?),
            kv_cache: Bytes::new(kept.checked_mul(self.n_layer)?),
            compute: Bytes::new(compute.checked_add(head.compute.get())?),
            buffers: buffers.checked_add(head.buffers)?,
        })
    }

    /// Where the weights of a layer lie in one piece, at multiples of `alignment`: its norms, then its projections by the names `q`, `k`, `v`,
    /// `output`, `gate`, `up` and `down`. `None` where a width cannot be, or beyond 2⁶⁴.
    pub fn layer(&self, alignment: u64) -> Option<Workspace> {
        let norms = self.norms(alignment)?;
        let (mut regions, from) = (norms.regions().to_vec(), norms.total().get());
        let codes = |layer: Layer| layer.on_device(Bytes::MAX).map(|(bytes, _)| bytes.get());
        let [q, k, v, output, gate, up, down] = self.projections()?;
        let projections = [
            ("q", codes(q)?),
            ("k", codes(k)?),
            ("v", codes(v)?),
            ("output", codes(output)?),
            ("gate", codes(gate)?),
            ("up", codes(up)?),
            ("down", codes(down)?),
        ];
        let total = place(&mut regions, from, projections, alignment)?;
        Some(Workspace::from_regions(regions, total))
    }

    /// Where keys and values of a layer lie in one piece, at multiples of `alignment`. `None` beyond 2⁶⁴.
    pub fn kept(&self, alignment: u64, context: Context) -> Option<Workspace> {
        let bytes = context.n_ctx.checked_mul(self.kv_width)?.checked_mul(context.element)?;
        let mut regions = Vec::with_capacity(2);
        let total = place(&mut regions, 0, [("keys", bytes), ("values", bytes)], alignment)?;
        Some(Workspace::from_regions(regions, total))
    }

    /// Everything that it takes with a context on a device that limits no piece and is told of pieces with each call: three buffers, of
    /// weights, of keys and values, and of what a batch is computed in with the rotary angles behind it. `None` where a width cannot be, or
    /// beyond 2⁶⁴.
    ///
    /// ```
    /// use workspace::Context;
    /// let stack = workspace::Stack { n_layer: 30, n_embd: 2560, n_ff: 6912, q_width: 2560, kv_width: 640, head_dim: 128, head: None };
    /// let bytes = stack.in_three(256, Context { n_ctx: 4096, tokens: 1, element: 2 }).unwrap();
    /// assert_eq!(bytes.weights.get(), 2_084_044_800 / 4 + 30 * 4 * (3 * 2560 + 6912));
    /// assert_eq!((bytes.kv_cache.get(), bytes.buffers), (76_800 * 4096, 3));
    /// ```
    pub fn in_three(&self, alignment: u64, context: Context) -> Option<StackBytes> {
        let each = |layer: Workspace| layer.total().get().checked_mul(self.n_layer);
        let of_head = |part: fn(&Head, u64) -> Option<Workspace>| match &self.head {
            Some(head) => part(head, alignment).map(|part| part.total().get()),
            None => Some(0),
        };
        let behind = self.behind(alignment, context)?;
        Some(StackBytes {
            weights: Bytes::new(each(self.layer(alignment)?)?.checked_add(of_head(Head::weights)?)?),
            kv_cache: Bytes::new(each(self.kept(alignment, context)?)?),
            compute: Bytes::new(behind.logits.checked_add(of_head(Head::compute)?)?),
            buffers: if self.n_layer == 0 { 2 } else { 3 },
        })
    }

    /// Where what is computed in lies in one piece: the arena of a batch, and where the rotary angles begin behind it, and logits behind those.
    /// `None` beyond 2⁶⁴.
    pub fn behind(&self, alignment: u64, context: Context) -> Option<Behind> {
        let arena = self.arena(self.together(context.tokens), alignment)?;
        let angles = arena.total().get();
        let logits = angles.checked_add(self.angles(context.n_ctx)?)?;
        let logits = if self.head.is_some() { logits.checked_next_multiple_of(alignment)? } else { logits };
        Some(Behind { arena, angles, logits })
    }

    /// The largest part that a kernel is given of what a context takes, weights aside: keys of a layer, rotary angles, logits, or a region of
    /// the arena. `None` beyond 2⁶⁴.
    pub fn largest_piece(&self, context: Context) -> Option<Bytes> {
        let keys = context.n_ctx.checked_mul(self.kv_width)?.checked_mul(context.element)?;
        let arena = self.arena(self.together(context.tokens), 1)?;
        let logits = self.head.map_or(Some(0), |head| head.compute(1).map(|compute| compute.largest()))?;
        Some(Bytes::new(keys.max(self.angles(context.n_ctx)?).max(arena.largest()).max(logits)))
    }

    /// Bytes of the table of rotary angles: a cosine and a sine for each pair of a head, by position.
    pub fn angles(&self, n_ctx: u64) -> Option<u64> {
        (self.head_dim / 2).checked_mul(8)?.checked_mul(n_ctx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use spec::QuantType;

    /// BitNet b1.58 2B-4T.
    const MODEL: Stack = Stack { n_layer: 30, n_embd: 2560, n_ff: 6912, q_width: 2560, kv_width: 640, head_dim: 128, head: None };
    const DEVICE: Device = Device { alignment: 256, largest: Bytes::from_mib(128) };

    #[test]
    fn figures_of_a_model() {
        let bytes = MODEL.bytes(DEVICE, Context { n_ctx: 4096, tokens: 1, element: 2 }).unwrap();
        // 2,084,044,800 ternary weights, 210 shapes, norms of f32: all whole multiples of the alignment.
        assert_eq!(bytes.weights.get(), 2_084_044_800 / 4 + 210 * 32 + 30 * 4 * (3 * 2560 + 6912));
        assert_eq!(bytes.kv_cache.get(), 76_800 * 4096);
        assert_eq!(bytes.compute.get(), (256 + 4 * 2560 + 6912 + 256 + 8 * 6912) + 4 * 128 * 4096 + 4 * 2560);
        assert_eq!(bytes.buffers, 30 * (14 + 1 + 2) + 3);
    }

    #[test]
    fn a_head_comes_on_top_and_alone_computes_one_token() {
        let head = Head { n_vocab: 128_256, n_embd: 2560, ty: QuantType::F16 };
        let context = Context { n_ctx: 4096, tokens: 32, element: 2 };
        let (without, with) = (MODEL.bytes(DEVICE, context).unwrap(), Stack { head: Some(head), ..MODEL }.bytes(DEVICE, context).unwrap());
        // 5 pieces of 26,214 rows at most, the norm; a token, logits, and logits to be read.
        assert_eq!(with.weights.get() - without.weights.get(), 128_256 * 5120 + 5 * 32 + 10_240);
        assert_eq!(with.compute.get() - without.compute.get(), 10_240 + 2 * 4 * 128_256);
        assert_eq!(with.buffers - without.buffers, 13);
        let alone = Stack { n_layer: 0, head: Some(head), ..MODEL };
        let one = Context { tokens: 1, ..context };
        assert_eq!(alone.bytes(DEVICE, context), alone.bytes(DEVICE, one));
        assert_eq!(alone.in_three(256, context).map(|bytes| (bytes.kv_cache.get(), bytes.buffers)), Some((0, 2)));
        let small = Context { n_ctx: 1, ..one };
        assert_eq!(alone.largest_piece(small), Some(Bytes::new(4 * 128_256)));
    }

    #[test]
    fn what_cannot_be_is_none() {
        assert_eq!(MODEL.largest_piece(Context { n_ctx: 200_000, tokens: 8, element: 2 }), Some(Bytes::new(200_000 * 1280)));
        assert_eq!(MODEL.largest_piece(Context { n_ctx: 8, tokens: 800, element: 2 }), Some(Bytes::new(800 * 4 * 6912)));
        assert_eq!(Stack { n_ff: 0, ..MODEL }.bytes(DEVICE, Context { n_ctx: 1, tokens: 1, element: 2 }), None);
        assert_eq!(MODEL.bytes(DEVICE, Context { n_ctx: u64::MAX, tokens: 1, element: 4 }), None);
        assert_eq!(MODEL.bytes(DEVICE, Context { n_ctx: 1, tokens: u64::MAX, element: 4 }), None);
        assert_eq!(MODEL.bytes(Device { largest: Bytes::new(639), ..DEVICE }, Context { n_ctx: 1, tokens: 1, element: 4 }), None);
        assert_eq!(Stack { n_ff: 0, ..MODEL }.in_three(256, Context { n_ctx: 1, tokens: 1, element: 4 }), None);
        assert_eq!(MODEL.in_three(256, Context { n_ctx: u64::MAX, tokens: 1, element: 4 }), None);
        assert_eq!(MODEL.in_three(256, Context { n_ctx: 1, tokens: u64::MAX, element: 4 }), None);
    }

    proptest! {
        /// Regions that are used at the same time lie apart, within the arena, at whole multiples of the alignment.
        #[test]
        fn regions_of_a_phase_lie_apart(
            widths in prop::array::uniform4(1..5000_u64),
            tokens in 1..600_u64,
            alignment in prop::sample::select(vec![16_u64, 64, 256]),
        ) {
            let [n_embd, n_ff, q_width, kv_width] = widths;
            let stack = Stack { n_layer: 2, n_embd, n_ff, q_width, kv_width, head_dim: 2, head: None };
            let arena = stack.arena(tokens, alignment).unwrap();
            for phase in [["queries", "keys", "values", "mixed"].as_slice(), &["gate", "up"]] {
                let mut end = 0;
                for name in ["batch", "stream", "activations", "scales"].iter().chain(phase) {
                    let region = arena.region(name).unwrap();
                    prop_assert!(region.offset >= end && region.offset.is_multiple_of(alignment));
                    end = region.offset + region.bytes;
                }
                prop_assert!(end <= arena.total().get());
            }
            prop_assert!(stack.arena(tokens + 1, alignment).unwrap().total() >= arena.total());
        }

        /// Parts of one piece lie apart, in whole multiples of the alignment, with as many bytes as pieces of their own have.
        #[test]
        fn three_buffers_hold_what_many_do(widths in prop::array::uniform4(1..5000_u64), n_ctx in 1..600_u64, tokens in 1..600_u64) {
            let [n_embd, n_ff, q_width, kv_width] = widths;
            let stack = Stack { n_layer: 3, n_embd, n_ff, q_width, kv_width, head_dim: 2, head: None };
            let context = Context { n_ctx, tokens, element: 2 };
            for parts in [stack.layer(256).unwrap(), stack.kept(256, context).unwrap()] {
                let ends = parts.regions().iter().map(|region| region.offset + region.bytes);
                let begins = parts.regions().iter().map(|region| region.offset).skip(1).chain([parts.total().get()]);
                for (end, begin) in ends.zip(begins) {
                    prop_assert!(begin.is_multiple_of(256) && (end..end + 256).contains(&begin));
                }
            }
            let (three, many) = (stack.in_three(256, context).unwrap(), stack.bytes(Device { alignment: 256, largest: Bytes::MAX }, context).unwrap());
            let shapes = 3 * 7 * SHAPE;
            prop_assert!((many.weights.get() - shapes..many.weights.get() - shapes + 3 * 7 * 256).contains(&three.weights.get()));
            prop_assert!((many.kv_cache.get()..many.kv_cache.get() + 3 * 2 * 256).contains(&three.kv_cache.get()));
            // Results are read from where they are.
            prop_assert_eq!(many.compute.get() - three.compute.get(), tokens * n_embd * 4);
        }
    }
}
