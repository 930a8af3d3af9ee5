//! The reference of `nave:allocation` for people who write policies: every item of the WIT with its documentation.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Result, bail};
use wit_bindgen_core::wit_parser::{
    Function, Interface, InterfaceId, Resolve, Stability, Type, TypeDefKind, TypeId, WorldItem,
};

use crate::{Generated, allocation};

/// Where the page is.
const PAGE: &str = "docs/src/policies/reference.md";

pub(crate) fn file(root: &Path) -> Result<Generated> {
    let (resolve, package) = allocation(root)?;
    let package = &resolve.packages[package];
    let mut page = Page { resolve: &resolve, text: String::new() };
    page.block("<!-- Made from wit/allocation by `cargo xtask generate`. Change the WIT. -->");
    page.block(&format!("# Reference: `{}`", package.name));
    page.documentation(package.docs.contents.as_deref())?;
    for (name, world) in &package.worlds {
        page.heading(2, &format!("World `{name}`"), &resolve.worlds[*world].stability)?;
        page.documentation(resolve.worlds[*world].docs.contents.as_deref())?;
        let mut table = String::from("| Export | Since | |\n|---|---|---|\n");
        for (key, item) in &resolve.worlds[*world].exports {
            let WorldItem::Interface { stability, docs, id, .. } = item else { bail!("{name} exports no interface") };
            let what =
                docs.contents.as_deref().or(resolve.interfaces[*id].docs.contents.as_deref()).unwrap_or_default();
            writeln!(table, "| `{}` | {} | {} |", resolve.name_world_key(key), since(stability)?, cell(what))?;
        }
        page.block(&table);
    }
    for (name, id) in &package.interfaces {
        page.interface(name, *id)?;
    }
    Ok(Generated { path: PAGE.into(), content: page.text.trim_end().to_owned() + "\n" })
}

struct Page<'a> {
    resolve: &'a Resolve,
    text: String,
}

impl Page<'_> {
    /// A paragraph, a table, a heading: set off by an empty line.
    fn block(&mut self, text: &str) {
        self.text.push_str(text.trim());
        self.text.push_str("\n\n");
    }

    fn heading(&mut self, level: usize, title: &str, stability: &Stability) -> Result<()> {
        self.block(&format!("{} {title}", "#".repeat(level)));
        self.block(&format!("*since {}*", since(stability)?));
        Ok(())
    }

    /// An item without documentation is refused: this page is all that its readers have.
    fn documentation(&mut self, text: Option<&str>) -> Result<()> {
        let Some(text) = text else { bail!("an item has no documentation; the page ends with:\n{}", tail(&self.text)) };
        self.block(text);
        Ok(())
    }

    fn interface(&mut self, name: &str, id: InterfaceId) -> Result<()> {
        let Interface { types, functions, docs, stability, .. } = &self.resolve.interfaces[id];
        self.heading(2, &format!("Interface `{name}`"), stability)?;
        self.documentation(docs.contents.as_deref())?;
        for function in functions.values() {
            self.function(function)?;
        }
        for (name, id) in types {
            self.type_definition(name, *id)?;
        }
        Ok(())
    }

    fn function(&mut self, function: &Function) -> Result<()> {
        self.heading(3, &format!("Function `{}`", function.name), &function.stability)?;
        let parameters = function.params.iter().map(|it| format!("{}: {}", it.name, self.type_name(&it.ty)));
        let parameters = parameters.collect::<Vec<_>>().join(", ");
        let result = function.result.map(|result| format!(" -> {}", self.type_name(&result))).unwrap_or_default();
        self.block(&format!("```wit\n{}: func({parameters}){result};\n```", function.name));
        self.documentation(function.docs.contents.as_deref())
    }

    fn type_definition(&mut self, name: &str, id: TypeId) -> Result<()> {
        let definition = &self.resolve.types[id];
        let rows: Vec<(&str, String, Option<&str>)> = match &definition.kind {
            TypeDefKind::Record(record) => {
                self.heading(3, &format!("Record `{name}`"), &definition.stability)?;
                let row = |field: &'_ wit_bindgen_core::wit_parser::Field| self.type_name(&field.ty);
                record.fields.iter().map(|it| (it.name.as_str(), row(it), it.docs.contents.as_deref())).collect()
            }
            TypeDefKind::Variant(variant) => {
                self.heading(3, &format!("Variant `{name}`"), &definition.stability)?;
                let row = |ty: Option<Type>| ty.map(|ty| self.type_name(&ty)).unwrap_or_default();
                variant.cases.iter().map(|it| (it.name.as_str(), row(it.ty), it.docs.contents.as_deref())).collect()
            }
            other => bail!("the page cannot show `{name}`, a {}, yet", other.as_str()),
        };
        let mut table = String::from("| Name | Type | Meaning |\n|---|---|---|\n");
        for (row, ty, docs) in rows {
            let Some(docs) = docs else { bail!("`{name}.{row}` has no documentation") };
            let ty = if ty.is_empty() { ty } else { format!("`{ty}`") };
            writeln!(table, "| `{row}` | {ty} | {} |", cell(docs))?;
        }
        self.documentation(definition.docs.contents.as_deref())?;
        self.block(&table);
        Ok(())
    }

    fn type_name(&self, ty: &Type) -> String {
        let Type::Id(id) = ty else { return primitive(ty).to_owned() };
        let definition = &self.resolve.types[*id];
        match (&definition.name, &definition.kind) {
            (Some(name), _) => name.clone(),
            (None, TypeDefKind::Option(inner)) => format!("option<{}>", self.type_name(inner)),
            (None, TypeDefKind::List(inner)) => format!("list<{}>", self.type_name(inner)),
            (None, kind) => kind.as_str().to_owned(),
        }
    }
}

fn since(stability: &Stability) -> Result<String> {
    match stability {
        Stability::Stable { since, deprecated: None } => Ok(since.to_string()),
        Stability::Stable { since, deprecated: Some(deprecated) } => {
            Ok(format!("{since}, deprecated since {deprecated}"))
        }
        Stability::Unknown | Stability::Unstable { .. } => bail!("an item has no @since"),
    }
}

/// Text for a cell of a table.
fn cell(text: &str) -> String {
    text.trim().replace('\n', " ").replace('|', "\\|")
}

fn tail(text: &str) -> String {
    text.lines().rev().take(3).collect::<Vec<_>>().into_iter().rev().collect::<Vec<_>>().join("\n")
}

fn primitive(ty: &Type) -> &'static str {
    match ty {
        Type::Bool => "bool",
        Type::U8 => "u8",
        Type::U16 => "u16",
        Type::U32 => "u32",
        Type::U64 => "u64",
        Type::S8 => "s8",
        Type::S16 => "s16",
        Type::S32 => "s32",
        Type::S64 => "s64",
        Type::F32 => "f32",
        Type::F64 => "f64",
        Type::Char => "char",
        Type::String => "string",
        Type::ErrorContext => "error-context",
        Type::Id(_) => "",
    }
}
