// Keeps a device at the hub that it has; a new device goes to the emptiest hub.
//
// Empty means few devices (fact `device-count`) for the hub's weight. A hub that is full (fact `capacity`) or is being
// emptied (weight 0) takes no new device. If all are, the device is told to come back in a minute.

#include "policy.h"

static const uint32_t RETRY_SECONDS = 60;

static uint8_t lower(uint8_t c) { return c >= 'A' && c <= 'Z' ? (uint8_t)(c + ('a' - 'A')) : c; }

// ASCII case is ignored, as it is in host names.
static bool same(policy_string_t a, policy_string_t b) {
    if (a.len != b.len) return false;
    for (size_t i = 0; i < a.len; i++) {
        if (lower(a.ptr[i]) != lower(b.ptr[i])) return false;
    }
    return true;
}

static policy_string_t text(const char *literal) {
    size_t len = 0;
    while (literal[len] != 0) len++;
    return (policy_string_t){.ptr = (uint8_t *)literal, .len = len};
}

// A fact whose JSON is a whole number; `otherwise` if the host does not know it, or if it is something else or too large.
static uint64_t number(const policy_hub_t *hub, const char *name, uint64_t otherwise) {
    for (size_t i = 0; i < hub->facts.len; i++) {
        policy_string_t json = hub->facts.ptr[i].json;
        if (!same(hub->facts.ptr[i].name, text(name)) || json.len == 0 || json.len > 9) continue;
        uint64_t value = 0;
        for (size_t digit = 0; digit < json.len; digit++) {
            if (json.ptr[digit] < '0' || json.ptr[digit] > '9') return otherwise;
            value = value * 10 + (json.ptr[digit] - '0');
        }
        return value;
    }
    return otherwise;
}

static void assign(const policy_hub_t *hub, policy_outcome_t *outcome) {
    // The rest is absent: device id, initial twin and payload are as the enrollment says.
    *outcome = (policy_outcome_t){.tag = POLICY_OUTCOME_ASSIGN, .val.assign = {.hub = hub->name}};
}

// The decision. Nothing is freed: every call has an instance of its own, which is thrown away afterwards.
void policy_allocate(policy_request_t *request, policy_outcome_t *outcome) {
    const policy_hub_t *best = NULL;
    uint64_t best_count = 0;
    for (size_t i = 0; i < request->hubs.len; i++) {
        const policy_hub_t *hub = &request->hubs.ptr[i];
        if (hub->weight == 0) continue;
        if (request->current.is_some && same(request->current.val.hub, hub->name)) {
            assign(hub, outcome);
            return;
        }
        uint64_t count = number(hub, "device-count", 0);
        if (count >= number(hub, "capacity", UINT64_MAX)) continue;
        // count / weight < best_count / best->weight, without division
        if (best == NULL || count * best->weight < best_count * hub->weight) {
            best = hub;
            best_count = count;
        }
    }
    if (best != NULL) {
        assign(best, outcome);
    } else {
        *outcome = (policy_outcome_t){.tag = POLICY_OUTCOME_RETRY_AFTER, .val.retry_after = RETRY_SECONDS};
    }
}
