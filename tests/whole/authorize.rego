package gateway

import rego.v1

# What a policy-adapter's policy looks like: who may call what, on which terms.
default authorize := {"allow": false, "reason": "unknown tenant"}

authorize := {
	"allow": true,
	"limits": object.get(plans[tenants[input.tenant].plan], "limits", {}),
	"models": plans[tenants[input.tenant].plan].models,
	"labels": {"plan": tenants[input.tenant].plan},
} if {
	tenants[input.tenant]
	not suspended
	not forbidden
}

authorize := {"allow": true, "limits": {"requests": 0}, "reason": "unpaid"} if suspended

authorize := {"allow": false, "reason": "no embeddings on this plan"} if {
	not suspended
	forbidden
}

suspended if tenants[input.tenant].unpaid

forbidden if {
	input.surface == "embeddings"
	tenants[input.tenant].plan == "free"
}

tenants := {
	"acme": {"plan": "free"},
	"globex": {"plan": "pro"},
	"initech": {"plan": "pro", "unpaid": true},
}

plans := {
	"free": {"models": ["openai/gpt-5-mini"], "limits": {"requests": "2/hour"}},
	"pro": {"models": ["*"]},
}
