#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "policy.h"

#define CHECK(condition)                                                                  \
    do {                                                                                  \
        if (!(condition)) {                                                               \
            fprintf(stderr, "%s:%d: %s: failed: %s\n", __FILE__, __LINE__, __func__, #condition); \
            exit(1);                                                                      \
        }                                                                                 \
    } while (0)

static policy_string_t text(const char *literal) {
    return (policy_string_t){.ptr = (uint8_t *)literal, .len = strlen(literal)};
}

static bool is(policy_string_t have, const char *wanted) {
    return have.len == strlen(wanted) && memcmp(have.ptr, wanted, have.len) == 0;
}

// Two facts a hub: how many devices it has, and how many it takes.
static policy_fact_t facts[3][2];
static policy_hub_t hubs[3];

static void hub(size_t index, const char *name, uint32_t weight, const char *count, const char *capacity) {
    facts[index][0] = (policy_fact_t){.name = text("device-count"), .json = text(count)};
    facts[index][1] = (policy_fact_t){.name = text("capacity"), .json = text(capacity)};
    hubs[index] = (policy_hub_t){.name = text(name), .weight = weight, .facts = {.ptr = facts[index], .len = 2}};
}

static policy_outcome_t decide(const char *current) {
    policy_request_t request = {.registration_id = text("pump-1"), .hubs = {.ptr = hubs, .len = 3}};
    if (current != NULL) {
        request.current.is_some = true;
        request.current.val.hub = text(current);
    }
    policy_outcome_t outcome;
    policy_allocate(&request, &outcome);
    return outcome;
}

static void assigned(const char *current, const char *wanted) {
    policy_outcome_t outcome = decide(current);
    CHECK(outcome.tag == POLICY_OUTCOME_ASSIGN);
    CHECK(is(outcome.val.assign.hub, wanted));
    CHECK(!outcome.val.assign.device_id.is_some && !outcome.val.assign.payload_json.is_some);
}

int main(void) {
    // A device stays, wherever there is more room.
    hub(0, "a.example", 1, "900", "1000");
    hub(1, "b.example", 1, "10", "1000");
    hub(2, "c.example", 4, "20", "1000");
    assigned("A.example", "a.example");
    // Unless its hub is being emptied or is not there any more; 20 of weight 4 is emptier than 10 of weight 1.
    assigned("z.example", "c.example");
    assigned(NULL, "c.example");
    hub(2, "c.example", 0, "20", "1000");
    assigned("c.example", "b.example");
    // A full hub takes no new device, but keeps those that it has.
    hub(1, "b.example", 1, "1000", "1000");
    assigned(NULL, "a.example");
    assigned("b.example", "b.example");
    // What is not a whole number is not known.
    hub(0, "a.example", 1, "\"many\"", "null");
    assigned(NULL, "a.example");
    // Nothing has room.
    hub(0, "a.example", 1, "5", "5");
    policy_outcome_t outcome = decide(NULL);
    CHECK(outcome.tag == POLICY_OUTCOME_RETRY_AFTER && outcome.val.retry_after == 60);
    puts("ok");
    return 0;
}
