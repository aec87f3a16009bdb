// The command line described to a shell and to man, from the very definitions that parse it.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

#include "absl/strings/string_view.h"

namespace jenkins_agent {

// Both leave out what is hidden from the help.

// A bash script that completes the words of `app`, whose program is called `app.get_name()`.
std::string BashCompletion(const CLI::App& app);

// A page of section 8 in man's macros (man-pages(7)).
std::string ManPage(const CLI::App& app, absl::string_view version);

// Adds the hidden commands `describe bash` and `describe man`, which print them: the package's
// files.
void AddDescribe(CLI::App& app, const std::string& version);

}  // namespace jenkins_agent
