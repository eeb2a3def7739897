//! What a program that loads models asks of loadmaster: `cargo run --release -p loadmaster --no-default-features --example loader --
//! MODEL [MEMORY]`, with a limit of memory such as `2GiB`. BitNet models are loaded and continue a prompt; other models are answered for.
#![allow(clippy::print_stdout, reason = "a program that tells its figures")]

use loadmaster::launch::bundled::{Generation, Prompt};
use loadmaster::launch::{Event, Interrupts};
use loadmaster::loader::{Limits, LoaderError, ProductionModelLoader};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let model = arguments.first().ok_or("name a model")?;
    let memory = arguments.get(1).map(|size| size.parse()).transpose()?;
    let loader = ProductionModelLoader::new().with_limits(Limits { memory, ..Limits::default() });

    let config = loader.optimal_device_config(model);
    println!("{}, {} tokens of context, {} threads", config.strategy, config.settings.n_ctx, config.settings.threads);
    for reason in config.reasons.iter().chain(&config.fallback) {
        println!("  - {reason}");
    }
    let needs = loader.memory_requirements(model, &config)?;
    for pool in &needs.pools {
        println!("{}: {} at load, {} at peak, {} left free", pool.name, pool.load, pool.peak, pool.safety_margin);
        for segment in &pool.segments {
            println!("  {:<22} {:>12} {:>12}", segment.segment, segment.load.to_string(), segment.peak.to_string());
        }
    }
    for saving in needs.suggestions.iter().take(3) {
        println!("  {} {} -> {} saves {} bytes: {}", saving.setting, saving.from, saving.to, saving.total(), saving.cost);
    }
    for violation in loader.validate(model, &config)?.violations {
        println!("  ! {violation}");
    }
    let mut session = match loader.load(model, &config) {
        Err(refused @ (LoaderError::NotInProcess { .. } | LoaderError::Limit { .. })) => {
            println!("not loaded: {refused}");
            return Ok(());
        }
        loaded => loaded?,
    };
    let generation = Generation { n_predict: 16, ..Generation::default() };
    let mut say = |event: Event<'_>| {
        if let Event::Text(text) = event {
            print!("{text}");
        }
    };
    session.generate(&Prompt::Text("Once upon a time".into()), &generation, &Interrupts::none(), &mut say)?;
    println!();
    Ok(())
}
