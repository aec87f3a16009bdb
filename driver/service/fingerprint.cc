#include "driver/service/fingerprint.h"

#include <google/protobuf/util/message_differencer.h>
#include <unistd.h>

#include <iterator>
#include <map>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "cgroups/hierarchy.h"
#include "driver/task/host_load.h"
#include "driver/task/state_dir.h"

namespace jenkins_agent {
namespace {

namespace nomad = hashicorp::nomad::plugins::drivers::proto;
using google::protobuf::util::MessageDifferencer;

void SetAttribute(nomad::FingerprintResponse& response, const std::string& key, std::string value) {
  (*response.mutable_attributes())[absl::StrCat("driver.", kDriverName, key)].set_string_val(
      std::move(value));
}

// driver.jenkins-agent.java.17 = "17.0.15": one attribute per feature version, its newest update;
// and whether there is any.
void SetJavaAttributes(nomad::FingerprintResponse& response,
                       const std::vector<JavaInstall>& javas) {
  SetAttribute(response, ".java", javas.empty() ? "false" : "true");
  std::map<uint32_t, std::string> newest;
  for (const JavaInstall& java : javas) newest.emplace(java.feature, java.version);
  for (const auto& [feature, version] : newest) {
    SetAttribute(response, absl::StrCat(".java.", feature), version);
  }
}

// What a job may ask for here: constraints on these keep it from nodes that would refuse it.
void SetLimitAttributes(nomad::FingerprintResponse& response, const HostFacts& facts,
                        const PluginConfig& config) {
  const auto flag = [&response](const char* key, bool on) {
    SetAttribute(response, key, on ? "true" : "false");
  };
  flag(".userns", facts.user_namespaces);
  flag(".io_weight", facts.io_weight);
  flag(".allow_root", config.allow_root);
  flag(".allow_privileged", config.isolation.allow_privileged);
  if (!config.isolation.allow_caps.empty()) {
    SetAttribute(response, ".allow_caps", absl::StrJoin(config.isolation.allow_caps, ","));
  }
  SetAttribute(response, ".log_collection", config.log_collection);
  if (facts.max_threads > 0) {
    SetAttribute(response, ".max_threads", absl::StrCat(facts.max_threads));
  }
}

std::string Trouble(const HostFacts& facts, const PluginConfig& config) {
  if (facts.cgroups_version.empty()) return absl::StrCat("cgroups: ", facts.cgroups_error);
  if (!facts.state_dir_error.empty()) {
    return absl::StrCat("state_dir ", config.state_dir, " ", facts.state_dir_error);
  }
  // An image may bring Java, if one can be fetched.
  if (facts.javas.empty() && !facts.tools.ok()) {
    return absl::StrCat("no JDK found, see option java_homes, and no image can be pulled: ",
                        facts.tools.message());
  }
  return "";
}

// What a job cannot use on a healthy node.
std::string Description(const HostFacts& facts) {
  if (!facts.tools.ok()) {
    return absl::StrCat("Healthy; agent.jar cannot be fetched: ", facts.tools.message());
  }
  if (facts.javas.empty()) {
    return "Healthy; no JDK found, see option java_homes: agents need an image that has Java";
  }
  return "Healthy";
}

bool Heals(const nomad::FingerprintResponse& told, const nomad::FingerprintResponse& now) {
  return told.health() != nomad::FingerprintResponse::HEALTHY &&
         now.health() == nomad::FingerprintResponse::HEALTHY;
}

std::string ImagePrefix() { return absl::StrCat("unique.driver.", kDriverName, ".image."); }

nomad::FingerprintResponse WithoutImages(nomad::FingerprintResponse response) {
  auto& attributes = *response.mutable_attributes();
  for (auto it = attributes.begin(); it != attributes.end();) {
    it = absl::StartsWith(it->first, ImagePrefix()) ? attributes.erase(it) : std::next(it);
  }
  return response;
}

// Compared as messages and not as bytes: the order of a map's entries is not defined.
bool SameButForImages(const nomad::FingerprintResponse& one,
                      const nomad::FingerprintResponse& other) {
  return MessageDifferencer::Equals(WithoutImages(one), WithoutImages(other));
}

}  // namespace

std::string ImageAttribute(absl::string_view name) {
  std::string key = absl::AsciiStrToLower(name);
  for (char& c : key) {
    if (!absl::ascii_isalnum(static_cast<unsigned char>(c)) && c != '-') c = '_';
  }
  return ImagePrefix() + key;
}

HostFacts ReadHostFacts(const PluginConfig& config) {
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
  facts.state_dir_error = StateDirTrouble(config.state_dir);
  facts.user_namespaces = ::access("/proc/self/ns/user", F_OK) == 0;
  facts.io_weight = CheckIoWeight().ok();
  if (const auto load = ReadHostLoad(); load.ok()) facts.max_threads = load->max_threads;
  if (auto javas = FindJavaHomes(config.java_homes); javas.ok()) facts.javas = *std::move(javas);
  return facts;
}

nomad::FingerprintResponse Fingerprint(const HostFacts& facts, const PluginConfig& config) {
  nomad::FingerprintResponse response;
  if (!facts.root) {
    response.set_health(nomad::FingerprintResponse::UNDETECTED);
    response.set_health_description("Driver must run as root");
    return response;
  }
  SetAttribute(response, "", "1");
  SetAttribute(response, ".version", kDriverVersion);
  if (!facts.cgroups_version.empty()) SetAttribute(response, ".cgroups", facts.cgroups_version);
  SetJavaAttributes(response, facts.javas);
  SetLimitAttributes(response, facts, config);
  for (const StoredRef& image : facts.images) {
    (*response.mutable_attributes())[ImageAttribute(image.name)].set_string_val(
        image.manifest.Short());
  }
  if (std::string trouble = Trouble(facts, config); !trouble.empty()) {
    response.set_health(nomad::FingerprintResponse::UNHEALTHY);
    response.set_health_description(std::move(trouble));
    return response;
  }
  response.set_health(nomad::FingerprintResponse::HEALTHY);
  response.set_health_description(Description(facts));
  return response;
}

void ClearGoneAttributes(const nomad::FingerprintResponse& earlier,
                         nomad::FingerprintResponse& now) {
  for (const auto& [key, value] : earlier.attributes()) {
    if (!now.attributes().contains(key)) (*now.mutable_attributes())[key].set_string_val("");
  }
}

std::optional<FingerprintPace::Response> FingerprintPace::NextImages(Response now) {
  if (!told_.has_value()) return std::nullopt;
  ClearGoneAttributes(*told_, now);
  if (MessageDifferencer::Equals(*told_, now) || !SameButForImages(*told_, now)) {
    return std::nullopt;
  }
  told_ = now;
  return now;
}

std::optional<FingerprintPace::Response> FingerprintPace::Next(Response now) {
  if (told_.has_value()) {
    ClearGoneAttributes(*told_, now);
    if (MessageDifferencer::Equals(*told_, now)) {
      candidate_.reset();
      return std::nullopt;
    }
    if (!SameButForImages(*told_, now)) {
      const bool again = candidate_.has_value() && MessageDifferencer::Equals(*candidate_, now);
      seen_ = again ? seen_ + 1 : 1;
      candidate_ = now;
      if (seen_ < (Heals(*told_, now) ? kLooksToHeal : kLooksToChange)) return std::nullopt;
    }
    candidate_.reset();
  }
  told_ = now;
  return now;
}

}  // namespace jenkins_agent
