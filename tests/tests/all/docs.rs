//! The book: every link leads somewhere, every include is there, every code is explained, and commands do what they say.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use nave_tests::paths;

use crate::process::Site;

fn book() -> PathBuf {
    paths::root().join("docs/src")
}

/// All pages, and their text without includes resolved.
fn pages() -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut waiting = vec![book()];
    while let Some(dir) = waiting.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                waiting.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                let text = fs::read_to_string(&path).unwrap();
                found.push((path, text));
            }
        }
    }
    found.sort();
    assert!(found.len() > 10, "the book has pages");
    found
}

/// What stands between `open` and `close`, each time.
fn between<'a>(text: &'a str, open: &'a str, close: &'a str) -> impl Iterator<Item = &'a str> {
    text.split(open).skip(1).filter_map(move |rest| rest.split_once(close).map(|(inside, _)| inside))
}

/// Text without fenced blocks, in which brackets mean nothing.
fn prose(text: &str) -> String {
    let mut inside = false;
    let lines = text.lines().filter(|line| {
        let fence = line.trim_start().starts_with("```");
        inside ^= fence;
        !inside && !fence
    });
    lines.collect::<Vec<_>>().join("\n")
}

fn relative_links(text: &str) -> Vec<String> {
    let prose = prose(text);
    let links = between(&prose, "](", ")").filter(|link| !link.contains("://") && !link.starts_with('#'));
    links.map(|link| link.split('#').next().unwrap_or_default().to_owned()).collect()
}

#[test]
fn every_link_leads_somewhere_and_every_page_is_listed() {
    let summary = fs::read_to_string(book().join("SUMMARY.md")).unwrap();
    let listed: BTreeSet<PathBuf> = relative_links(&summary).iter().map(|link| book().join(link)).collect();
    for (page, text) in pages() {
        let dir = page.parent().unwrap();
        for link in relative_links(&text) {
            assert!(dir.join(&link).is_file(), "{}: {link}", page.display());
        }
        for include in between(&text, "{{#include ", "}}") {
            let path = dir.join(include.split(':').next().unwrap());
            let included =
                fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {include}: {error}", page.display()));
            // In the book it stands elsewhere, and a relative link would lead nowhere.
            assert_eq!(relative_links(&included), Vec::<String>::new(), "{}", path.display());
        }
        if page.file_name().unwrap() != "SUMMARY.md" {
            assert!(listed.contains(&page), "{} is not in SUMMARY.md", page.display());
        }
    }
}

#[test]
fn every_error_code_is_explained() {
    let source = fs::read_to_string(paths::root().join("runtime/hub/src/error.rs")).unwrap();
    let (_, codes) = source.split_once("error_codes! {\n").unwrap();
    let (codes, _) = codes.split_once("\n}\n").unwrap();
    let page = fs::read_to_string(book().join("reference/errors.md")).unwrap();
    let mut count = 0;
    for line in codes.lines().filter(|line| !line.trim_start().starts_with("//")) {
        let (name, number) = line.trim().trim_end_matches(',').split_once(" = ").unwrap();
        let row = format!("| {} | `{name}` | ", number.replace('_', ""));
        assert!(page.contains(&row), "docs/src/reference/errors.md has no row `{row}`");
        count += 1;
    }
    assert!(count > 40);
}

/// Runs the blocks of a page that are marked `sh,test`, in order and as one script, against a hub of its own.
fn run_page(page: &Path, text: &str) {
    let blocks: Vec<&str> = between(text, "```sh,test\n", "```").collect();
    if blocks.is_empty() {
        return;
    }
    let site = Site::new();
    let (hub, _) = site.start();
    let work = site.root().join("work");
    fs::create_dir(&work).unwrap();
    let program = site.tool(&[]);
    let bin = Path::new(program.get_program()).parent().unwrap();
    let path = std::env::join_paths(
        std::iter::once(bin.to_owned()).chain(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())),
    );
    let mut shell = Command::new("sh");
    for (name, value) in program.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    let script = format!("set -eu\n{}", blocks.concat());
    shell.arg("-c").arg(script).env("PATH", path.unwrap()).env("WORK", &work).current_dir(&work);
    let output = shell.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {said}\n{}", page.display(), String::from_utf8_lossy(&output.stdout));
    hub.stop();
}

#[test]
fn the_commands_of_the_book_do_what_they_say() {
    // Side by side: most of the time is the simulated devices' pauses.
    std::thread::scope(|scope| {
        for (page, text) in pages() {
            scope.spawn(move || run_page(&page, &text));
        }
    });
}
