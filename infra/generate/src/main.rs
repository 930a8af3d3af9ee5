//! Writes the generated files; `cargo xtask generate` runs it.

use std::fs;
use std::process::ExitCode;

use anyhow::{Context as _, Result};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let root = nave_generate::root();
    for file in nave_generate::files(&root)? {
        let path = root.join(&file.path);
        if fs::read_to_string(&path).is_ok_and(|have| have == file.content) {
            println!("unchanged  {}", file.path.display());
            continue;
        }
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
        }
        fs::write(&path, file.content).with_context(|| format!("cannot write {}", path.display()))?;
        println!("written    {}", file.path.display());
    }
    Ok(())
}
