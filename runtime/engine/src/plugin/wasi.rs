//! WASI 0.2 with nothing behind it.
//!
//! The interfaces that language runtimes call on their own, whatever the policy does, are virtual: clocks, randomness,
//! standard streams, the environment, the list of preopened folders. Everything else that a component imports by name
//! (files, sockets, outgoing HTTP, ...) is there only so that it can be linked: a call ends the policy's call, and the error
//! names the function. A typed refusal such as "access denied" would be weaker: runtimes hide it behind errors of their own.
//!
//! Definitions are made for what this component imports, under the very name and version that it imports, so every 0.2.x
//! is served by the same code. The types are written out here rather than generated from the WIT of WASI: a dozen small
//! functions are all that is behind these interfaces, and a crate that implements all of WASI would bring sockets and
//! file systems into the process only for us to take them away again.

use std::sync::Arc;

use wasmtime::component::types::ComponentItem;
use wasmtime::component::{Component, ComponentType, Linker, LinkerInstance, Lower, Resource, ResourceType, Val};
use wasmtime::{Engine, Result, StoreContextMut};

use super::error::PolicyError;
use super::inspect::Access;
use super::sandbox::{Sandbox, Stop};

/// Interfaces that are virtual, without their version.
const VIRTUAL: [&str; 22] = [
    "wasi:cli/environment",
    "wasi:cli/exit",
    "wasi:cli/stderr",
    "wasi:cli/stdin",
    "wasi:cli/stdout",
    "wasi:cli/terminal-input",
    "wasi:cli/terminal-output",
    "wasi:cli/terminal-stderr",
    "wasi:cli/terminal-stdin",
    "wasi:cli/terminal-stdout",
    "wasi:clocks/monotonic-clock",
    "wasi:clocks/timezone",
    "wasi:clocks/wall-clock",
    "wasi:filesystem/preopens",
    "wasi:io/error",
    "wasi:io/poll",
    "wasi:io/streams",
    "wasi:random/insecure",
    "wasi:random/insecure-seed",
    "wasi:random/random",
    "wasi:sockets/instance-network",
    "wasi:sockets/network",
];

/// Most random bytes that one call may ask for; the policy's own memory is what they are for.
const MAX_RANDOM_BYTES: u64 = 1 << 20;

/// Bytes that a stream says it takes at once.
const WRITE_PERMIT: u64 = 64 << 10;

struct Input;
struct Output;
struct Pollable;
struct IoError;
/// Whatever a policy can name but never hold.
struct Nothing;

#[derive(ComponentType, Lower)]
#[component(record)]
struct Datetime {
    seconds: u64,
    nanoseconds: u32,
}

#[derive(ComponentType, Lower)]
#[component(variant)]
enum StreamError {
    #[component(name = "last-operation-failed")]
    #[expect(dead_code, reason = "a case of the type; no stream here ever fails")]
    LastOperationFailed(Resource<IoError>),
    #[component(name = "closed")]
    Closed,
}

/// What is behind an imported interface.
pub(super) fn access(import: &str) -> Result<Access, PolicyError> {
    let refused = || PolicyError::Import(import.to_owned());
    let (interface, version) = import.split_once('@').ok_or_else(refused)?;
    if !interface.starts_with("wasi:") || !version.starts_with("0.2.") {
        return Err(refused());
    }
    Ok(if VIRTUAL.contains(&interface) { Access::Virtual } else { Access::Refused })
}

/// A linker with a definition for everything that `component` imports.
pub(super) fn linker(engine: &Engine, component: &Component) -> Result<Linker<Sandbox>, PolicyError> {
    let mut linker = Linker::new(engine);
    for (import, item) in component.component_type().imports(engine) {
        let ComponentItem::ComponentInstance(instance) = item.ty else { continue };
        access(import)?;
        let interface = import.split('@').next().unwrap_or_default();
        let defined = linker.instance(import).and_then(|mut definitions| {
            for (name, item) in instance.exports(engine) {
                match item.ty {
                    ComponentItem::ComponentFunc(_) if define(&mut definitions, interface, name)? => {}
                    ComponentItem::ComponentFunc(_) => {
                        refuse(&mut definitions, format!("{interface}#{name}").into(), name)?;
                    }
                    ComponentItem::Resource(_) => definitions.resource(name, resource(name), |_, _| Ok(()))?,
                    _ => {}
                }
            }
            Ok(())
        });
        defined.map_err(|error| PolicyError::World(format!("`{import}`: {error:#}")))?;
    }
    Ok(linker)
}

fn refuse(definitions: &mut LinkerInstance<'_, Sandbox>, import: Arc<str>, name: &str) -> Result<()> {
    definitions.func_new(name, move |_, _, _, _| Err(wasmtime::Error::new(Stop::NotGranted(Arc::clone(&import)))))
}

/// Interfaces use each other's resources under the same names.
fn resource(name: &str) -> ResourceType {
    match name {
        "input-stream" => ResourceType::host::<Input>(),
        "output-stream" => ResourceType::host::<Output>(),
        "pollable" => ResourceType::host::<Pollable>(),
        "error" => ResourceType::host::<IoError>(),
        _ => ResourceType::host::<Nothing>(),
    }
}

/// Defines a function of a virtual interface; false if it is none.
fn define(definitions: &mut LinkerInstance<'_, Sandbox>, interface: &str, name: &str) -> Result<bool> {
    match interface {
        "wasi:clocks/wall-clock" | "wasi:clocks/monotonic-clock" => clock(definitions, interface, name),
        "wasi:random/random" | "wasi:random/insecure" | "wasi:random/insecure-seed" => random(definitions, name),
        "wasi:io/poll" => poll(definitions, name),
        "wasi:io/streams" => stream(definitions, name),
        _ => surroundings(definitions, interface, name),
    }
}

type Context<'a> = StoreContextMut<'a, Sandbox>;

fn clock(definitions: &mut LinkerInstance<'_, Sandbox>, interface: &str, name: &str) -> Result<bool> {
    match (interface, name) {
        ("wasi:clocks/wall-clock", "now") => {
            definitions.func_wrap(name, |context: Context<'_>, (): ()| Ok((datetime(context.data().now()),)))?;
        }
        ("wasi:clocks/wall-clock", "resolution") => {
            definitions.func_wrap(name, |_: Context<'_>, (): ()| Ok((datetime(1),)))?;
        }
        (_, "now") => definitions.func_wrap(name, |context: Context<'_>, (): ()| Ok((context.data().now(),)))?,
        (_, "resolution") => definitions.func_wrap(name, |_: Context<'_>, (): ()| Ok((1u64,)))?,
        (_, "subscribe-instant") => {
            definitions.func_wrap(name, |mut context: Context<'_>, (when,): (u64,)| pollable(&mut context, when))?;
        }
        (_, "subscribe-duration") => definitions.func_wrap(name, |mut context: Context<'_>, (wait,): (u64,)| {
            let when = context.data().now().saturating_add(wait);
            pollable(&mut context, when)
        })?,
        _ => return Ok(false),
    }
    Ok(true)
}

const fn datetime(unix_nanos: u64) -> Datetime {
    Datetime { seconds: unix_nanos / 1_000_000_000, nanoseconds: (unix_nanos % 1_000_000_000) as u32 }
}

fn pollable(context: &mut Context<'_>, when: u64) -> Result<(Resource<Pollable>,)> {
    Ok((Resource::new_own(context.data_mut().timer(when).map_err(wasmtime::Error::new)?),))
}

fn random(definitions: &mut LinkerInstance<'_, Sandbox>, name: &str) -> Result<bool> {
    match name {
        "get-random-bytes" | "get-insecure-random-bytes" => {
            definitions.func_wrap(name, |mut context: Context<'_>, (length,): (u64,)| {
                if length > MAX_RANDOM_BYTES {
                    return Err(wasmtime::Error::new(Stop::Resources("asked for too many random bytes at once")));
                }
                let length = usize::try_from(length)?;
                let mut bytes = Vec::with_capacity(length + 8);
                while bytes.len() < length {
                    bytes.extend(context.data_mut().random().to_le_bytes());
                }
                bytes.truncate(length);
                Ok((bytes,))
            })?;
        }
        "get-random-u64" | "get-insecure-random-u64" => {
            definitions.func_wrap(name, |mut context: Context<'_>, (): ()| Ok((context.data_mut().random(),)))?;
        }
        "insecure-seed" | "get-insecure-seed" => {
            definitions.func_wrap(name, |mut context: Context<'_>, (): ()| {
                let sandbox = context.data_mut();
                Ok(((sandbox.random(), sandbox.random()),))
            })?;
        }
        _ => return Ok(false),
    }
    Ok(true)
}

fn poll(definitions: &mut LinkerInstance<'_, Sandbox>, name: &str) -> Result<bool> {
    match name {
        "[method]pollable.ready" => {
            definitions.func_wrap(name, |context: Context<'_>, (of,): (Resource<Pollable>,)| {
                Ok((context.data().is_due(of.rep()),))
            })?;
        }
        "[method]pollable.block" => {
            definitions.func_wrap(name, |mut context: Context<'_>, (of,): (Resource<Pollable>,)| {
                context.data_mut().wait(std::iter::once(of.rep()));
                Ok(())
            })?;
        }
        "poll" => definitions.func_wrap(name, |mut context: Context<'_>, (all,): (Vec<Resource<Pollable>>,)| {
            let sandbox = context.data_mut();
            sandbox.wait(all.iter().map(Resource::rep));
            let due = (0u32..).zip(&all).filter(|(_, of)| sandbox.is_due(of.rep())).map(|(index, _)| index);
            Ok((due.collect::<Vec<_>>(),))
        })?,
        _ => return Ok(false),
    }
    Ok(true)
}

/// Standard input is at its end; standard output and error go into the buffer of the call.
fn stream(definitions: &mut LinkerInstance<'_, Sandbox>, name: &str) -> Result<bool> {
    match name {
        "[method]input-stream.read" | "[method]input-stream.blocking-read" => {
            definitions.func_wrap(name, |_: Context<'_>, _: (Resource<Input>, u64)| {
                Ok((Err::<Vec<u8>, _>(StreamError::Closed),))
            })?;
        }
        "[method]input-stream.skip" | "[method]input-stream.blocking-skip" => {
            definitions.func_wrap(name, |_: Context<'_>, _: (Resource<Input>, u64)| {
                Ok((Err::<u64, _>(StreamError::Closed),))
            })?;
        }
        "[method]input-stream.subscribe" => {
            definitions
                .func_wrap(name, |_: Context<'_>, _: (Resource<Input>,)| Ok((Resource::<Pollable>::new_own(0),)))?;
        }
        "[method]output-stream.subscribe" => {
            definitions
                .func_wrap(name, |_: Context<'_>, _: (Resource<Output>,)| Ok((Resource::<Pollable>::new_own(0),)))?;
        }
        "[method]output-stream.check-write" => {
            definitions
                .func_wrap(name, |_: Context<'_>, _: (Resource<Output>,)| Ok((Ok::<_, StreamError>(WRITE_PERMIT),)))?;
        }
        "[method]output-stream.write" | "[method]output-stream.blocking-write-and-flush" => {
            definitions.func_wrap(name, |mut context: Context<'_>, (_, bytes): (Resource<Output>, Vec<u8>)| {
                context.data_mut().write(&bytes);
                Ok((Ok::<(), StreamError>(()),))
            })?;
        }
        "[method]output-stream.flush" | "[method]output-stream.blocking-flush" => {
            definitions.func_wrap(name, |_: Context<'_>, _: (Resource<Output>,)| Ok((Ok::<(), StreamError>(()),)))?;
        }
        _ => return Ok(false),
    }
    Ok(true)
}

/// An environment without variables, arguments, folders or terminals.
fn surroundings(definitions: &mut LinkerInstance<'_, Sandbox>, interface: &str, name: &str) -> Result<bool> {
    match (interface, name) {
        ("wasi:cli/environment", "get-environment") => {
            definitions.func_wrap(name, |_: Context<'_>, (): ()| Ok((Vec::<(String, String)>::new(),)))?;
        }
        ("wasi:cli/environment", "get-arguments") => {
            definitions.func_wrap(name, |_: Context<'_>, (): ()| Ok((Vec::<String>::new(),)))?;
        }
        ("wasi:cli/environment", "initial-cwd") => {
            definitions.func_wrap(name, |_: Context<'_>, (): ()| Ok((None::<String>,)))?;
        }
        ("wasi:cli/exit", "exit" | "exit-with-code") => {
            definitions.func_new(name, |_, _, _, _| Err(wasmtime::Error::new(Stop::Exit)))?;
        }
        ("wasi:cli/stdin", "get-stdin") => {
            definitions.func_wrap(name, |_: Context<'_>, (): ()| Ok((Resource::<Input>::new_own(0),)))?;
        }
        ("wasi:cli/stdout", "get-stdout") | ("wasi:cli/stderr", "get-stderr") => {
            definitions.func_wrap(name, |_: Context<'_>, (): ()| Ok((Resource::<Output>::new_own(0),)))?;
        }
        (
            "wasi:cli/terminal-stdin" | "wasi:cli/terminal-stdout" | "wasi:cli/terminal-stderr",
            "get-terminal-stdin" | "get-terminal-stdout" | "get-terminal-stderr",
        ) => definitions.func_wrap(name, |_: Context<'_>, (): ()| Ok((None::<Resource<Nothing>>,)))?,
        ("wasi:filesystem/preopens", "get-directories") => {
            definitions.func_wrap(name, |_: Context<'_>, (): ()| Ok((Vec::<(Resource<Nothing>, String)>::new(),)))?;
        }
        // An error of a stream is never one of a file.
        ("wasi:filesystem/types", "filesystem-error-code") | ("wasi:http/types", "http-error-code") => {
            definitions.func_new(name, |_, _, _, results| {
                results.fill(Val::Option(None));
                Ok(())
            })?;
        }
        // A handle that nothing can be done with: every use of it is refused. Runtimes fetch it before they look at what
        // the program wants.
        ("wasi:sockets/instance-network", "instance-network") => {
            definitions.func_wrap(name, |_: Context<'_>, (): ()| Ok((Resource::<Nothing>::new_own(0),)))?;
        }
        _ => return Ok(false),
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wasi_of_0_2_is_virtual_or_refused_and_nothing_else_is_linked() {
        assert_eq!(access("wasi:clocks/wall-clock@0.2.3"), Ok(Access::Virtual));
        assert_eq!(access("wasi:random/random@0.2.10"), Ok(Access::Virtual));
        for refused in ["wasi:http/outgoing-handler@0.2.3", "wasi:sockets/tcp@0.2.0", "wasi:filesystem/types@0.2.0"] {
            assert_eq!(access(refused), Ok(Access::Refused), "{refused}");
        }
        for unknown in ["wasi:clocks/wall-clock", "wasi:clocks/system-clock@0.3.0", "env:host/secrets@0.2.0", "log"] {
            assert_eq!(access(unknown), Err(PolicyError::Import(unknown.to_owned())), "{unknown}");
        }
    }

    #[test]
    fn the_virtual_interfaces_are_in_order() {
        assert!(VIRTUAL.is_sorted());
    }
}
