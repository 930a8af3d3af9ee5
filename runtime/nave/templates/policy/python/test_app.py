import json
import unittest

from wit_world.exports.policy import Assignment, Fact, Hub, Outcome_Assign, Outcome_Refuse, Request

from app import decide, subject_part


def hub(name, weight=1, **facts):
    return Hub(name, weight, [Fact(name, json.dumps(value)) for name, value in facts.items()])


def request(subject, current=None, hubs=None):
    facts = [] if subject is None else [Fact("x509", json.dumps({"subjectName": subject}))]
    return Request(
        registration_id="pump-1",
        policy="{{name}}",
        enrollment_json='{"enrollmentGroup":{}}',
        payload_json=None,
        config_json=None,
        current=current and Assignment(current, "pump-1", None, None),
        hubs=hubs or [
            hub("hub1.example.org", labels={"organisation": "Acme"}),
            hub("acme.example.org"),
            hub("globex.example.org"),
        ],
        unix_nanos=0,
        seed=0,
        facts=facts,
    )


class Decision(unittest.TestCase):
    def assigned(self, request):
        outcome = decide(request)
        self.assertIsInstance(outcome, Outcome_Assign)
        return outcome.value

    def test_the_organisation_names_the_hub(self):
        self.assertEqual(self.assigned(request("CN=pump-1, O=Acme")).hub, "hub1.example.org")
        self.assertEqual(self.assigned(request("O=GLOBEX, CN=pump-1")).hub, "globex.example.org")

    def test_a_device_stays_while_its_hub_belongs_to_the_organisation(self):
        self.assertEqual(self.assigned(request("O=Acme", "ACME.example.org")).hub, "acme.example.org")
        self.assertEqual(self.assigned(request("O=Acme", "globex.example.org")).hub, "hub1.example.org")

    def test_a_hub_that_is_being_emptied_takes_nothing(self):
        hubs = [hub("acme.example.org", weight=0), hub("hub2.example.org", labels={"organisation": "acme"})]
        self.assertEqual(self.assigned(request("O=Acme", hubs=hubs)).hub, "hub2.example.org")

    def test_the_organisation_becomes_a_tag(self):
        twin = self.assigned(request("O=Acme")).initial_twin_json
        self.assertEqual(json.loads(twin), {"tags": {"organisation": "Acme"}})

    def test_the_rest_is_refused(self):
        for subject in [None, "CN=pump-1", "O=Unknown"]:
            self.assertIsInstance(decide(request(subject)), Outcome_Refuse, subject)


class Subject(unittest.TestCase):
    def test_parts(self):
        self.assertEqual(subject_part("CN=pump-1, O=Acme, C=DE", "O"), "Acme")
        self.assertEqual(subject_part(r"CN=a,O=Example\, Inc.", "O"), "Example, Inc.")
        self.assertEqual(subject_part("OU=x+O=y", "O"), "y")
        self.assertIsNone(subject_part("CN=O\\=x", "O"))


if __name__ == "__main__":
    unittest.main()
