//! What the templates become.

use std::fs;

use wit_component::DecodedWasm;

use crate::nave::{EXAMPLES, code, example, policy, run, stderr, stdout};

#[test]
fn every_template_becomes_a_component_of_the_world_that_imports_nothing() {
    for (lang, name) in EXAMPLES {
        let bytes = fs::read(example(name)).unwrap();
        let DecodedWasm::Component(resolve, world) = wit_component::decode(&bytes).unwrap() else {
            panic!("{lang}: not a component");
        };
        let imports: Vec<_> = resolve.worlds[world].imports.keys().map(|key| resolve.name_world_key(key)).collect();
        assert_eq!(imports, [""; 0], "{lang}");
        let exports: Vec<_> = resolve.worlds[world].exports.keys().map(|key| resolve.name_world_key(key)).collect();
        assert!(exports.iter().any(|export| export == "nave:allocation/policy@0.1.0"), "{lang}: {exports:?}");
    }
}

#[test]
fn a_module_without_the_interface_becomes_no_component() {
    let dir = tempfile::tempdir().unwrap();
    let (module, wit, out) = (dir.path().join("a.wasm"), dir.path().join("wit"), dir.path().join("b.wasm"));
    fs::write(&module, b"\0asm\x01\0\0\0").unwrap();
    fs::create_dir(&wit).unwrap();
    fs::copy(nave_tests::paths::root().join("wit/allocation/allocation.wit"), wit.join("allocation.wit")).unwrap();
    let (wit, to) = (wit.to_str().unwrap(), out.to_str().unwrap());
    let with_wit = policy("component", &module, &[to, "--wit", wit]);
    assert_eq!(code(&with_wit), 1);
    assert!(stderr(&with_wit).contains("nave:allocation/policy@0.1.0"), "{}", stderr(&with_wit));
    let unknown_world = policy("component", &module, &[to, "--wit", wit, "--world", "other"]);
    assert_eq!(code(&unknown_world), 2, "{}", stderr(&unknown_world));
    assert!(!out.exists());
}

#[test]
fn a_new_project_says_where_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let project = dir.path().join("p");
    let made = run(["new", "by-load", "--lang", "c", "--dir", project.to_str().unwrap()]);
    assert!(made.status.success() && stdout(&made).contains(project.to_str().unwrap()), "{}", stderr(&made));
    assert_eq!(code(&run(["new", "by-load", "--lang", "c", "--dir", project.to_str().unwrap()])), 2);
    assert_eq!(code(&run(["new", "By Load", "--lang", "c"])), 2);
}
