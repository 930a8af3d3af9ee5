//! What Spin gives to a component: variables, and a key-value store with compare-and-swap.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};

use wasmtime::StoreContextMut;
use wasmtime::component::{ComponentType, Lift, Linker, Lower, Resource, ResourceTable, ResourceType};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody, WasiHttpCtx, WasiHttpCtxView, WasiHttpHooks, WasiHttpView};

/// What lives as long as the host.
pub(crate) struct Shared {
    variables: BTreeMap<String, String>,
    store: Mutex<HashMap<String, Vec<u8>>>,
}

/// What lives as long as one request.
pub(crate) struct Request {
    shared: Arc<Shared>,
    table: ResourceTable,
    wasi: WasiCtx,
    http: WasiHttpCtx,
    network: NoNetwork,
}

impl Request {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        let wasi = WasiCtx::builder().inherit_stderr().build();
        Self { shared, table: ResourceTable::new(), wasi, http: WasiHttpCtx::new(), network: NoNetwork }
    }
}

impl WasiView for Request {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

impl WasiHttpView for Request {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView { ctx: &mut self.http, table: &mut self.table, hooks: &mut self.network }
    }
}

/// A component sends nothing anywhere.
pub(crate) struct NoNetwork;

type Sent = Result<(http::Response<WasiBody>, Box<dyn Future<Output = Result<(), Error>> + Send>), Error>;

impl WasiHttpHooks for NoNetwork {
    fn send_request(
        &mut self,
        _: http::Request<WasiBody>,
        _: Option<RequestOptions>,
        _: Box<dyn Future<Output = Result<(), Error>> + Send>,
    ) -> Box<dyn Future<Output = Sent> + Send> {
        Box::new(async { Err(Error::HttpRequestDenied) })
    }
}

struct Bucket;

/// The value that a swap compares with.
struct Cas {
    key: String,
    seen: Option<Vec<u8>>,
}

#[derive(Clone, Debug, ComponentType, Lift, Lower)]
#[component(variant)]
enum StoreError {
    #[component(name = "no-such-store")]
    NoSuchStore,
    #[component(name = "access-denied")]
    AccessDenied,
    #[component(name = "other")]
    Other(String),
}

#[derive(ComponentType, Lift, Lower)]
#[component(variant)]
enum CasError {
    #[component(name = "store-error")]
    StoreError(StoreError),
    #[component(name = "cas-failed")]
    CasFailed(Resource<Cas>),
}

#[derive(Clone, Debug, ComponentType, Lift, Lower)]
#[component(variant)]
enum VariableError {
    #[component(name = "invalid-name")]
    InvalidName(String),
    #[component(name = "undefined")]
    Undefined(String),
    #[component(name = "provider")]
    Provider(String),
    #[component(name = "other")]
    Other(String),
}

type Caller<'a> = StoreContextMut<'a, Request>;

pub(crate) fn add_to_linker(linker: &mut Linker<Request>) -> wasmtime::Result<()> {
    let mut variables = linker.instance("spin:variables/variables@3.0.0")?;
    variables.func_wrap_concurrent("get", |accessor, (name,): (String,)| {
        let value = accessor.with(|mut access| access.data_mut().shared.variables.get(&name).cloned());
        Box::pin(async move { Ok((value.ok_or(VariableError::Undefined(name)),)) })
    })?;

    let mut store = linker.instance("wasi:keyvalue/store@0.2.0-draft2")?;
    store.resource("bucket", ResourceType::host::<Bucket>(), |mut caller: Caller<'_>, id| {
        caller.data_mut().table.delete(Resource::<Bucket>::new_own(id)).map(drop).map_err(wasmtime::Error::from)
    })?;
    store.func_wrap("open", |mut caller: Caller<'_>, (name,): (String,)| {
        if name != "default" {
            return Ok((Err(StoreError::NoSuchStore),));
        }
        Ok((Ok(caller.data_mut().table.push(Bucket)?),))
    })?;
    store.func_wrap("[method]bucket.get", |caller: Caller<'_>, (_, key): (Resource<Bucket>, String)| {
        Ok((Ok::<_, StoreError>(caller.data().shared.get(&key)),))
    })?;

    let mut atomics = linker.instance("wasi:keyvalue/atomics@0.2.0-draft2")?;
    atomics.resource("cas", ResourceType::host::<Cas>(), |mut caller: Caller<'_>, id| {
        caller.data_mut().table.delete(Resource::<Cas>::new_own(id)).map(drop).map_err(wasmtime::Error::from)
    })?;
    atomics.func_wrap("[static]cas.new", |mut caller: Caller<'_>, (_, key): (Resource<Bucket>, String)| {
        let seen = caller.data().shared.get(&key);
        Ok((Ok::<_, StoreError>(caller.data_mut().table.push(Cas { key, seen })?),))
    })?;
    atomics.func_wrap("[method]cas.current", |mut caller: Caller<'_>, (cas,): (Resource<Cas>,)| {
        let shared = Arc::clone(&caller.data().shared);
        let cas = caller.data_mut().table.get_mut(&cas)?;
        cas.seen = shared.get(&cas.key);
        Ok((Ok::<_, StoreError>(cas.seen.clone()),))
    })?;
    atomics.func_wrap("swap", |mut caller: Caller<'_>, (cas, value): (Resource<Cas>, Vec<u8>)| {
        let cas = caller.data_mut().table.delete(cas)?;
        match caller.data().shared.swap(&cas, value) {
            None => Ok((Ok(()),)),
            Some(seen) => {
                let cas = caller.data_mut().table.push(Cas { key: cas.key, seen })?;
                Ok((Err(CasError::CasFailed(cas)),))
            }
        }
    })?;
    Ok(())
}

impl Shared {
    pub(crate) fn new(variables: BTreeMap<String, String>) -> Self {
        Self { variables, store: Mutex::default() }
    }

    fn get(&self, key: &str) -> Option<Vec<u8>> {
        self.lock().get(key).cloned()
    }

    /// Writes unless the value is another one now, which is returned.
    fn swap(&self, cas: &Cas, value: Vec<u8>) -> Option<Option<Vec<u8>>> {
        let mut store = self.lock();
        let now = store.get(&cas.key).cloned();
        if now != cas.seen {
            return Some(now);
        }
        store.insert(cas.key.clone(), value);
        None
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Vec<u8>>> {
        self.store.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
