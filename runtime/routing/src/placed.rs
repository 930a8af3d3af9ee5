//! The routes of a table, in pieces that tables share.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;

use crate::endpoints::Endpoints;
use crate::matcher::Indexed;
use crate::names::RouteName;
use crate::program::Program;
use crate::source::Source;
use crate::table::{Route, TableError};

/// Routes by their numbers, in pieces that tables share, so that a table with one more is made quickly. A number whose route
/// was removed stays free.
#[derive(Clone, Default)]
pub(crate) struct Routes {
    pieces: Vec<Arc<Vec<Option<PlacedRoute>>>>,
}

impl Routes {
    /// How many routes a piece has.
    const PIECE: usize = 512;

    /// Places for routes, free ones included.
    pub(crate) fn len(&self) -> usize {
        self.pieces.last().map_or(0, |last| (self.pieces.len() - 1) * Self::PIECE + last.len())
    }

    pub(crate) fn get(&self, number: usize) -> Option<&PlacedRoute> {
        self.pieces.get(number / Self::PIECE)?.get(number % Self::PIECE)?.as_ref()
    }

    /// Puts a route, or none, in a place, of which the last is the one after the last; gives what was there.
    pub(crate) fn set(&mut self, number: usize, route: Option<PlacedRoute>) -> Option<PlacedRoute> {
        if number == self.pieces.len() * Self::PIECE {
            self.pieces.push(Arc::default());
        }
        let piece = Arc::make_mut(self.pieces.get_mut(number / Self::PIECE)?);
        match piece.get_mut(number % Self::PIECE) {
            Some(place) => std::mem::replace(place, route),
            None => {
                piece.push(route);
                None
            }
        }
    }

    /// The routes with their numbers.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (usize, &PlacedRoute)> {
        let places = self.pieces.iter().flat_map(|piece| piece.iter());
        places.enumerate().filter_map(|(number, place)| Some((number, place.as_ref()?)))
    }
}

impl FromIterator<PlacedRoute> for Routes {
    fn from_iter<I: IntoIterator<Item = PlacedRoute>>(all: I) -> Self {
        let mut routes = Self::default();
        for (number, route) in all.into_iter().enumerate() {
            routes.set(number, Some(route));
        }
        routes
    }
}

/// A route, and what is asked of all routes when one of them changes.
#[derive(Clone)]
pub(crate) struct PlacedRoute {
    pub(crate) compiled: Arc<CompiledRoute>,
    /// Of the name, which ignores case.
    pub(crate) name_hash: u64,
    pub(crate) source: Source,
    pub(crate) endpoint: u8,
    pub(crate) enabled: bool,
    pub(crate) needs_body: bool,
    pub(crate) needs_twin: bool,
}

pub(crate) struct CompiledRoute {
    pub(crate) route: Route,
    pub(crate) program: Arc<Program>,
}

impl PlacedRoute {
    pub(crate) fn new(route: Route, program: Program, endpoints: &mut Endpoints) -> Result<Self, TableError> {
        Ok(Self {
            name_hash: name_hash(&route.name),
            source: route.source,
            endpoint: endpoints.place(&route.endpoint)?,
            enabled: route.enabled,
            needs_body: program.needs_body(),
            needs_twin: program.needs_twin(),
            compiled: Arc::new(CompiledRoute { route, program: Arc::new(program) }),
        })
    }

    pub(crate) fn indexed(&self, route: u32) -> Indexed {
        Indexed { route, endpoint: self.endpoint, program: Arc::clone(&self.compiled.program) }
    }
}

/// A hash of a name that ignores case, as names of routes do.
pub(crate) fn name_hash(name: &RouteName) -> u64 {
    let mut hasher = DefaultHasher::new();
    name.as_str().to_ascii_lowercase().hash(&mut hasher);
    hasher.finish()
}
