// Text for Protobuf's strings: one byte that is not UTF-8 makes the whole message unreadable, for
// our own readers and for Nomad's.
#pragma once

#include <cstddef>
#include <string>

#include "absl/strings/string_view.h"

namespace jenkins_agent {

// Shortest form, no surrogates, up to U+10FFFF (RFC 3629).
bool IsUtf8(absl::string_view text);
// Each byte that is not part of a character becomes U+FFFD.
std::string ToUtf8(absl::string_view text);

// Whether `byte` goes on a character that an earlier byte began.
bool ContinuesCharacter(char byte);
// How many columns UTF-8 text of single-width characters takes on a terminal.
size_t CountCharacters(absl::string_view text);

}  // namespace jenkins_agent
