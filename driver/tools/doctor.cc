#include "driver/tools/doctor.h"

#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "driver/base/file.h"
#include "driver/base/programs.h"
#include "driver/base/status.h"
#include "driver/base/subprocess.h"
#include "driver/config/plugin_config.h"
#include "driver/jvm/java.h"
#include "driver/nomad/client.h"
#include "driver/nomad/environment.h"
#include "driver/tools/finding.h"
#include "driver/tools/host_checks.h"
#include "driver/tools/nomad_checks.h"

namespace jenkins_agent {
namespace {

using Json = nlohmann::json;

constexpr std::chrono::seconds kTrialLimit{90};
constexpr size_t kMaxAnswer = 64 << 10;

struct Options {
  std::string state_dir;  // empty: Nomad's configuration, else the default
  std::vector<std::string> java_homes;
  std::string controller;
  std::string ca_file;
  bool no_trial = false;
  bool json = false;
};

void Append(Findings more, Findings& findings) {
  for (Finding& finding : more) findings.push_back(std::move(finding));
}

std::string TextOf(const Json& object, const char* key) {
  const auto it = object.find(key);
  return it != object.end() && it->is_string() ? it->get<std::string>() : "";
}

std::string CgroupsOf(const HostView& view) {
  switch (view.cgroups) {
    case cgroups::Version::kV1:
      return "1";
    case cgroups::Version::kV2:
      return "2";
    case cgroups::Version::kNone:
      break;
  }
  return "";
}

// ---- a sandbox with a JVM ----------------------------------------------------------------------

absl::StatusOr<Json> AskTrial(const std::string& file, const std::vector<std::string>& java_homes) {
  RunOptions run;
  run.timeout = kTrialLimit;
  run.stdin_data = Json{{"java_homes", java_homes}}.dump();
  ASSIGN_OR_RETURN(const RunResult result, Run({file, kTrialRole}, run));
  Json answer = Json::parse(result.output, nullptr, /*allow_exceptions=*/false);
  if (answer.is_object()) return answer;
  return absl::InternalError(absl::StrCat("ended with ", result.exit.exit_code, ": ",
                                          absl::StripAsciiWhitespace(result.error_tail)));
}

Finding TrySandbox(const Options& options) {
  constexpr char kName[] = "trial sandbox";
  constexpr char kFix[] = "the message names the step that this host refuses";
  const char* file = ::getenv(kPluginFileVariable);
  if (file == nullptr) return Warn(kName, "not tried", "start doctor by the plugin's own file");
  const absl::StatusOr<std::vector<JavaInstall>> javas = FindJavaHomes(options.java_homes);
  if (javas.ok() && javas->empty()) {
    return Warn(kName, "not tried: its program is a JVM, and no JDK was found", "see java");
  }
  const absl::StatusOr<Json> answer = AskTrial(file, options.java_homes);
  if (!answer.ok()) return Fail(kName, answer.status().message(), kFix);
  if (!answer->value("ok", false)) return Fail(kName, TextOf(*answer, "error"), kFix);
  return Ok(kName, absl::StrFormat("ready in %.1f ms; its JVM says: %s",
                                   answer->value("sandbox_ms", 0.0), TextOf(*answer, "said")));
}

// ---- a controller ------------------------------------------------------------------------------

// By the worker that the plugin asks, too: as nobody, in this host's network.
absl::StatusOr<Json> AskWorker(const Options& options) {
  ASSIGN_OR_RETURN(const Pipe input, MakePipe());
  StartOptions start;
  start.stdin_fd = input.read.get();
  start.pipe_stdout = true;
  ASSIGN_OR_RETURN(const Subprocess process, Start({"/proc/self/exe", "preflight"}, start));
  const Json request = {
      {"urls", {options.controller}}, {"name", "doctor"}, {"ca_file", options.ca_file}};
  RETURN_IF_ERROR(WriteAll(input.write.get(), request.dump() + "\n"));
  const absl::StatusOr<std::string> text = ReadAll(process.output.get(), kMaxAnswer);
  RETURN_IF_ERROR(Wait(process).status());
  RETURN_IF_ERROR(text.status());
  Json answer = Json::parse(*text, nullptr, /*allow_exceptions=*/false);
  if (answer.is_object()) return answer;
  return absl::InternalError("the url or the CA file is of no use");
}

Finding TryController(const Options& options) {
  constexpr char kName[] = "controller";
  const absl::StatusOr<Json> answer = AskWorker(options);
  if (!answer.ok())
    return Fail(kName, answer.status().message(), "correct --controller, --ca-file");
  if (answer->value("reached", false)) return Ok(kName, TextOf(*answer, "line"));
  return Fail(kName, TextOf(*answer, "line"),
              "agents wait until this is so; is the url the controller's root?");
}

// ---- the command -------------------------------------------------------------------------------

Findings Examine(const Options& options) {
  Findings findings;
  HostView view = LookAtHost(PluginConfig().state_dir, options.java_homes);
  NomadChecks nomad_checks;
  const auto endpoint = nomad::EndpointFromEnvironment([](const char* name) {
    const char* value = ::getenv(name);
    return std::string(value == nullptr ? "" : value);
  });
  const auto client = endpoint.ok() ? nomad::Client::Create(*endpoint) : endpoint.status();
  if (client.ok()) {
    nomad_checks = CheckNomad(**client, CgroupsOf(view));
    Append(CheckTlsFiles(*endpoint, ::time(nullptr)), nomad_checks.findings);
  } else {
    nomad_checks.findings = {
        Warn("nomad agent", client.status().message(), "correct Nomad's environment variables")};
  }
  const std::string state_dir =
      !options.state_dir.empty() ? options.state_dir : nomad_checks.state_dir;
  if (!state_dir.empty()) view = LookAtHost(state_dir, options.java_homes);
  Append(CheckHost(view), findings);
  if (!options.no_trial && view.root) findings.push_back(TrySandbox(options));
  if (!options.controller.empty()) findings.push_back(TryController(options));
  Append(std::move(nomad_checks.findings), findings);
  return findings;
}

}  // namespace

void AddDoctorCommand(CLI::App& app, int& exit_code) {
  const auto options = std::make_shared<Options>();
  CLI::App* doctor = app.add_subcommand(
      "doctor",
      "Check whether this node can run agents. Exit code 0, 2 when a check failed, 1 for an error");
  doctor->add_option("--controller", options->controller, "Also ask the controller with this url");
  doctor->add_option("--ca-file", options->ca_file, "PEM file to trust for it, beside the host's");
  doctor->add_option("--state-dir", options->state_dir,
                     "The plugin's option state_dir; left out: as Nomad's configuration has it");
  doctor->add_option("--java-home", options->java_homes, "The plugin's option java_homes");
  doctor->add_flag("--no-trial", options->no_trial, "Make no sandbox with a JVM for a trial");
  doctor->add_flag("--json", options->json, "For programs");
  doctor->callback([options, &exit_code] {
    const Findings findings = Examine(*options);
    std::cout << (options->json ? FindingsJson(findings) : FindingsText(findings));
    std::cout.flush();
    exit_code = AnyFailed(findings) ? kDoctorFailures : kDoctorFine;
  });
}

}  // namespace jenkins_agent
