// What the example in Rust decides, for a measurement beside it: the hub whose first name is the tag `site` of the enrollment.

export const policy = {
  allocate(request) {
    const enrollment = JSON.parse(request.enrollmentJson);
    const site = (enrollment.enrollmentGroup ?? enrollment.individualEnrollment).initialTwin?.tags?.site;
    const hub = request.hubs.find((hub) => hub.weight > 0 && hub.name.split('.')[0] === site);
    return hub ? { tag: 'assign', val: { hub: hub.name } } : { tag: 'refuse', val: 'no hub at this site' };
  },
};
