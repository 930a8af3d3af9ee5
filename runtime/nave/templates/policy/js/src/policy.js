// Chooses the hub by the region that the device sends with its registration: its payload is {"region": "…"}.
//
// A hub is in a region if its fact `location` or the first part of its name begins with it. Among those of the region the
// nearest one (fact `latency-ms`) gets the device; a device stays where it is while its hub is in the region. A device
// that names no region is refused, one whose region has no hub is left to the built-in policy `hashed`.

/** What the world's interface `policy` exports. */
export const policy = { allocate };

/**
 * The decision. It depends on nothing but the request, so it is tested like any other function.
 *
 * @param request the record `request` of wit/allocation.wit, members in camelCase; absent ones are `undefined`
 * @returns the variant `outcome`: `{ tag, val }`
 */
export function allocate(request) {
  const region = parse(request.payloadJson)?.region;
  if (typeof region !== 'string' || region === '') {
    return { tag: 'refuse', val: 'the registration payload must be {"region": "…"}' };
  }
  const hubs = request.hubs.filter((hub) => hub.weight > 0 && isIn(hub, region.toLowerCase()));
  if (hubs.length === 0) {
    return { tag: 'use-policy', val: 'hashed' };
  }
  const now = request.current?.hub.toLowerCase();
  const stay = hubs.find((hub) => hub.name.toLowerCase() === now);
  const nearest = hubs.reduce((best, hub) => (latency(hub) < latency(best) ? hub : best));
  return {
    tag: 'assign',
    val: { hub: (stay ?? nearest).name, payloadJson: JSON.stringify({ region: region.toLowerCase() }) },
  };
}

function isIn(hub, region) {
  const location = fact(hub, 'location');
  const names = [typeof location === 'string' ? location : '', hub.name.split('.')[0]];
  return names.some((name) => name.toLowerCase().startsWith(region));
}

function latency(hub) {
  return fact(hub, 'latency-ms') ?? Infinity;
}

function fact(hub, name) {
  return parse(hub.facts.find((fact) => fact.name === name)?.json);
}

function parse(json) {
  return json === undefined ? undefined : JSON.parse(json);
}
