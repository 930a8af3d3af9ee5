//! Mistakes in the configuration: exit code 2, a message that says what to do, and nothing touched.

use std::fs;

use super::server::Site;

#[test]
fn an_unknown_key_is_refused_with_a_suggestion() {
    let site = Site::with("\n[[hub]]\nname = \"hub2\"\nhots_name = \"hub2.nave.test\"\n");
    site.refused(site.command()).expect(2, &["hots_name", "did you mean `host_name`", "nave.toml", "line 17"]);
    assert!(!site.data().exists(), "nothing was made");
}

#[test]
fn impossible_values_are_refused() {
    let cases: [(&str, &[&str]); 5] = [
        ("\n[[hub]]\nname = \"hub2\"\nhost_name = \"nodot\"\n", &["hub2", "nodot", "dot"]),
        ("\n[[hub]]\nname = \"hub1\"\n", &["hub1", "two hubs"]),
        ("\n[[hub]]\nname = \"hub2\"\npartitions = 0\n", &["hub2", "partitions"]),
        ("\n[log]\nlevel = \"loud\"\n", &["log.level", "loud"]),
        ("\n[log\n", &["line"]),
    ];
    for (more, words) in cases {
        let site = Site::with(more);
        site.refused(site.command()).expect(2, words);
        assert!(!site.data().exists(), "nothing was made for {more}");
    }
}

#[test]
fn a_route_that_cannot_be_compiled_is_refused() {
    let site = Site::with("\n[[hub.route]]\nname = \"hot\"\ncondition = \"temperature >\"\n");
    site.refused(site.command()).expect(2, &["hub1", "hot"]);
    assert!(!site.ready_file().exists());
}

#[test]
fn flags_and_environment_are_checked_too() {
    let site = Site::new();
    let mut command = site.command();
    command.env("NAVE_LISTEN_HTTPS", "nowhere");
    site.refused(command).expect(2, &["nowhere", "`off`"]);
    let mut command = site.command();
    command.args(["--listen-admin", "0.0.0.0:9000"]);
    site.refused(command).expect(2, &["listen.admin", "127.0.0.1"]);
    let mut command = site.command();
    command.arg("--no-such-flag");
    site.refused(command).expect(2, &["--no-such-flag"]);
}

#[test]
fn a_configuration_that_is_not_there_is_named() {
    let site = Site::new();
    fs::remove_file(site.root().join("nave.toml")).unwrap();
    site.refused(site.command()).expect(2, &["nave.toml", "cannot read"]);
}

#[test]
fn a_file_is_no_data_directory() {
    let site = Site::new();
    fs::write(site.data(), "something of somebody").unwrap();
    site.refused(site.command()).expect(1, &["is not a directory", "--data-dir"]);
    assert_eq!(fs::read(site.data()).unwrap(), b"something of somebody");
}
