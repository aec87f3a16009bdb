// Class-data sharing: an archive of the classes that an agent loads at its start (JEP 350), which
// another JVM maps instead of loading them. Figures: jenkins-agent.md 3, controller.md 5.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "proto/supervisor.pb.h"

namespace jenkins_agent {

// -XX:ArchiveClassesAtExit.
inline constexpr uint32_t kFirstJavaWithArchives = 13;

// A JVM that may get an archive reads further options from a file of the driver's, which is empty
// until an archive is there: one that is named and missing costs the JVM the JDK's own archive too.
std::string ClassDataOption();
// Content of that file, with the archive beside it.
std::string ClassDataOptionsFile();

// Whether each JDK that this agent may run under, with these options, ours included, could map an
// archive that was made with ours alone. Pure.
bool CanShareClassData(const pb::AgentSpec& agent);

// Everything that an archive depends on, as a text: the JDK's build, the jar, what HotSpot itself
// checks (FileMapHeader::validate, ClassLoaderExt) and what it does not. Reads the JDK's files.
absl::StatusOr<std::string> ClassDataIdentity(const std::string& java_home,
                                              absl::string_view jar_sha256);

// Of the JVM that makes one and exits: ours, and where to write it.
std::vector<std::string> ClassDataDumpOptions(const std::string& archive);

}  // namespace jenkins_agent
