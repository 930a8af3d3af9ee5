//! `nave policy new`: a project that builds with its language's ordinary tools.
//!
//! The templates are in `runtime/nave/templates/policy`, one folder a language. What they need besides, the interface, comes
//! from `wit/allocation`. `cargo xtask policies` makes, tests and builds a project of each.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use crate::failure::Failure;
use crate::output;

/// What stands for the project's name in a template.
const NAME: &str = "{{name}}";

/// Longest name: it becomes a package's name in each language and the policy's name in a hub.
const MAX_NAME: usize = 64;

/// Names that are taken in Rust, as a package or as a keyword.
const RESERVED: [&str; 12] =
    ["alloc", "as", "core", "fn", "impl", "mod", "policy", "proc-macro", "self", "std", "test", "use"];

/// The interface that a policy implements.
const WIT: &str = include_str!("../../../../../wit/allocation/allocation.wit");

/// Start a project for an allocation policy.
#[derive(Args)]
#[command(after_long_help = "\
Each template contains another example:
  rust     by a tag of the enrollment, configurable
  js       by the region in the device's payload
  python   by the organisation in the device's certificate
  c        stay at the current hub, else go to the emptiest

README.md in the project has the commands that build, test and try it.")]
pub(super) struct New {
    /// The project's name: small letters, digits and hyphens.
    name: String,
    /// The language.
    #[arg(long, value_enum)]
    lang: Language,
    /// The project's folder [default: the name, in this folder].
    #[arg(long)]
    dir: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Language {
    Rust,
    #[value(alias = "javascript")]
    Js,
    Python,
    C,
}

/// A file of a project: its path and its content.
type File = (&'static str, &'static str);

macro_rules! template {
    ($language:literal: $($path:literal $(from $source:literal)?),* $(,)?) => {
        &[$(($path, include_str!(concat!("../../../templates/policy/", $language, "/", template!(@ $path $($source)?))))),*]
    };
    (@ $path:literal) => { $path };
    (@ $path:literal $source:literal) => { $source };
}

// Files that would mean something in this repository too have other names here.
const RUST: &[File] = template!("rust":
    "README.md",
    "Cargo.toml",
    ".cargo/config.toml" from "cargo/config.toml",
    ".gitignore" from "gitignore",
    "src/lib.rs",
    "cases/by-tag.json",
);
const JS: &[File] = template!("js":
    "README.md",
    "package.json",
    "package-lock.json",
    ".gitignore" from "gitignore",
    "src/policy.js",
    "test/policy.test.js",
    "cases/by-region.json",
);
const PYTHON: &[File] = template!("python":
    "README.md",
    "requirements.txt",
    ".gitignore" from "gitignore",
    "app.py",
    "test_app.py",
    "cases/by-organisation.json",
);
const C: &[File] = template!("c":
    "README.md",
    "Makefile",
    ".gitignore" from "gitignore",
    "src/allocate.c",
    "tests/test.c",
    "bindings/policy.c",
    "bindings/policy.h",
    "libc/libc.c",
    "libc/stdlib.h",
    "libc/string.h",
    "cases/sticky.json",
);

impl Language {
    const fn files(self) -> &'static [File] {
        match self {
            Self::Rust => RUST,
            Self::Js => JS,
            Self::Python => PYTHON,
            Self::C => C,
        }
    }
}

/// Runs the command.
pub(super) fn run(args: &New) -> Result<(), Failure> {
    check_name(&args.name)?;
    let dir = args.dir.clone().unwrap_or_else(|| PathBuf::from(&args.name));
    refuse_used(&dir)?;
    let files = args.lang.files().iter().copied().chain([("wit/allocation.wit", WIT)]);
    for (path, content) in files {
        write(&dir.join(path), &content.replace(NAME, &args.name))?;
    }
    output::line(&format!("created {}; its README.md has the commands that build, test and try it", dir.display()))
}

/// Refuses names that one of the languages or a hub would refuse.
fn check_name(name: &str) -> Result<(), Failure> {
    let good = name.len() <= MAX_NAME
        && name.starts_with(|first: char| first.is_ascii_lowercase())
        && !name.ends_with('-')
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
    if !good {
        return Err(Failure::usage(format_args!(
            "a policy's name is 1 to {MAX_NAME} small letters, digits and hyphens, beginning with a letter and not ending \
             with a hyphen"
        )));
    }
    if RESERVED.contains(&name) {
        return Err(Failure::usage(format_args!(
            "`{name}` means something else in one of the languages: choose another name"
        )));
    }
    Ok(())
}

/// Nothing of somebody's work is overwritten.
fn refuse_used(dir: &Path) -> Result<(), Failure> {
    match fs::read_dir(dir).map(|mut entries| entries.next()) {
        Ok(None) => Ok(()),
        Ok(Some(_)) => Err(Failure::usage(format_args!("{} is not empty: choose another --dir", dir.display()))),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Failure::usage(format_args!("{}: {error}", dir.display()))),
    }
}

fn write(path: &Path, content: &str) -> Result<(), Failure> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)
        .and_then(|()| fs::write(path, content))
        .map_err(|error| Failure::runtime(format_args!("{}: {error}", path.display())))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn create(name: &str, lang: Language, dir: &Path) -> Result<(), Failure> {
        run(&New { name: name.to_owned(), lang, dir: Some(dir.to_owned()) })
    }

    fn paths(dir: &Path, below: &Path) -> BTreeSet<PathBuf> {
        fs::read_dir(dir)
            .unwrap()
            .flat_map(|entry| {
                let path = entry.unwrap().path();
                if path.is_dir() { paths(&path, below) } else { [path.strip_prefix(below).unwrap().to_owned()].into() }
            })
            .collect()
    }

    #[test]
    fn a_project_has_every_file_of_its_template_and_the_interface() {
        for lang in Language::value_variants() {
            let dir = tempfile::tempdir().unwrap();
            create("by-site", *lang, dir.path()).unwrap();
            let template = Path::new(env!("CARGO_MANIFEST_DIR"))
                .join("templates/policy")
                .join(lang.to_possible_value().unwrap().get_name());
            let renamed = |path: PathBuf| match path.to_str() {
                Some("gitignore") => ".gitignore".into(),
                Some("cargo/config.toml") => ".cargo/config.toml".into(),
                _ => path,
            };
            let mut wanted: BTreeSet<PathBuf> = paths(&template, &template).into_iter().map(renamed).collect();
            wanted.insert("wit/allocation.wit".into());
            assert_eq!(paths(dir.path(), dir.path()), wanted, "{lang:?}");
            for path in &wanted {
                let text = fs::read_to_string(dir.path().join(path)).unwrap();
                assert!(!text.contains(NAME), "{lang:?}: {}", path.display());
            }
            let readme = fs::read_to_string(dir.path().join("README.md")).unwrap();
            assert!(readme.starts_with("# by-site\n"), "{lang:?}");
        }
    }

    #[test]
    fn what_is_there_is_not_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        create("a", Language::C, dir.path()).unwrap();
        assert!(matches!(create("b", Language::C, dir.path()), Err(Failure::Usage(_))));
        assert!(fs::read_to_string(dir.path().join("README.md")).unwrap().starts_with("# a\n"));
        // A file where the folder should be.
        assert!(matches!(create("b", Language::C, &dir.path().join("README.md")), Err(Failure::Usage(_))));
    }

    #[test]
    fn names_fit_every_language() {
        let longest = "a".repeat(MAX_NAME);
        for good in ["a", "by-site", "v2", "a--b", longest.as_str()] {
            check_name(good).unwrap();
        }
        let too_long = "a".repeat(MAX_NAME + 1);
        for bad in ["", "2a", "-a", "a-", "A", "a_b", "a.b", "ä", "../x", "test", "std", too_long.as_str()] {
            assert!(matches!(check_name(bad), Err(Failure::Usage(_))), "{bad}");
        }
    }
}
