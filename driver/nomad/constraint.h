// Nomad's constraints, decided as scheduler/feasible/feasible.go decides them (checkConstraint).
// Pure.
#pragma once

#include <optional>
#include <string>

#include "driver/nomad/state.h"

namespace jenkins_agent::nomad {

// The value of "${node.class}", "${attr.kernel.name}", "${meta.rack}" on this node; a text without
// "${" is itself. Nothing: the node has none.
std::optional<std::string> Resolve(const std::string& target, const Node& node);

// Can Resolve(target) be known only from the node's own page (Node::has_details)?
bool NeedsDetails(const std::string& target);

// True also for distinct_hosts and distinct_property, which are not about one node alone.
bool Meets(const Constraint& constraint, const Node& node);

// `distinct_hosts` that is switched on; anything but "false" switches it on.
bool IsDistinctHosts(const Constraint& constraint);

// Go's strconv.ParseBool; nothing: the text is no boolean.
std::optional<bool> ParseBool(const std::string& text);

// "*" stands for any text; nothing else is special (job.datacenters, ryanuber/go-glob).
bool GlobMatches(const std::string& pattern, const std::string& text);

}  // namespace jenkins_agent::nomad
