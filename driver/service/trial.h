// A trial of this host: one sandbox with a JVM in it, made by the plugin's own machinery in a
// throw-away state directory, and removed again. For `doctor`, which starts the plugin's file in
// this role.
#pragma once

#include <iosfwd>

#include "driver/service/runtime.h"

namespace jenkins_agent {

// Reads {"java_homes": [..]} from `in`, writes one line of JSON to `out`:
//   {"ok":true,"java":"/usr/lib/jvm/..","sandbox_ms":2.9,"said":"openjdk version \"17.0.15\" .."}
//   {"ok":false,"error":"cgroups: .."}
// Exit code: 0 when it is ok.
int RunTrial(const EmbeddedPrograms& programs, std::istream& in, std::ostream& out);

}  // namespace jenkins_agent
