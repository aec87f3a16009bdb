#include "driver/service/fingerprint.h"

#include <unistd.h>

#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "cgroups/hierarchy.h"

namespace jenkins_agent {
namespace {

namespace nomad = hashicorp::nomad::plugins::drivers::proto;

void SetAttribute(nomad::FingerprintResponse& response, const std::string& key, std::string value) {
  (*response.mutable_attributes())[absl::StrCat("driver.", kDriverName, key)].set_string_val(
      std::move(value));
}

// driver.jenkins-agent.java.17 = "17.0.15": one attribute per feature version, its newest update.
void SetJavaAttributes(nomad::FingerprintResponse& response,
                       const std::vector<JavaInstall>& javas) {
  std::map<uint32_t, std::string> newest;
  for (const JavaInstall& java : javas) newest.emplace(java.feature, java.version);
  for (const auto& [feature, version] : newest) {
    SetAttribute(response, absl::StrCat(".java.", feature), version);
  }
}

}  // namespace

HostFacts ReadHostFacts(const std::vector<std::string>& java_homes) {
  HostFacts facts;
  facts.root = ::geteuid() == 0;
  if (const auto hierarchy = cgroups::Hierarchy::Detect(); !hierarchy.ok()) {
    facts.cgroups_error = std::string(hierarchy.status().message());
  } else if (hierarchy->version() == cgroups::Version::kV1) {
    facts.cgroups_version = "1";
  } else if (hierarchy->version() == cgroups::Version::kV2) {
    facts.cgroups_version = "2";
  } else {
    facts.cgroups_error = "no cgroups are mounted";
  }
  if (auto javas = FindJavaHomes(java_homes); javas.ok()) facts.javas = *std::move(javas);
  return facts;
}

nomad::FingerprintResponse Fingerprint(const HostFacts& facts) {
  nomad::FingerprintResponse response;
  if (!facts.root) {
    response.set_health(nomad::FingerprintResponse::UNDETECTED);
    response.set_health_description("Driver must run as root");
    return response;
  }
  SetAttribute(response, "", "1");
  SetAttribute(response, ".version", kDriverVersion);
  SetJavaAttributes(response, facts.javas);
  if (facts.cgroups_version.empty()) {
    response.set_health(nomad::FingerprintResponse::UNHEALTHY);
    response.set_health_description(absl::StrCat("cgroups: ", facts.cgroups_error));
    return response;
  }
  SetAttribute(response, ".cgroups", facts.cgroups_version);
  response.set_health(nomad::FingerprintResponse::HEALTHY);
  std::string description = "Healthy";
  if (facts.javas.empty()) absl::StrAppend(&description, "; no JDK found, see option java_homes");
  if (!facts.tools.ok()) {
    absl::StrAppend(&description, "; agent.jar cannot be fetched: ", facts.tools.message());
  }
  response.set_health_description(std::move(description));
  return response;
}

void ClearGoneAttributes(const nomad::FingerprintResponse& earlier,
                         nomad::FingerprintResponse& now) {
  for (const auto& [key, value] : earlier.attributes()) {
    if (!now.attributes().contains(key)) (*now.mutable_attributes())[key].set_string_val("");
  }
}

}  // namespace jenkins_agent
