#include "driver/tools/nomad_checks.h"

#include <openssl/asn1.h>
#include <openssl/bio.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <memory>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "driver/base/file.h"
#include "driver/base/status.h"

namespace jenkins_agent {
namespace {

using Json = nlohmann::json;

constexpr char kFileName[] = "nomad-driver-jenkins-agent";  // and the plugin block's name
constexpr char kDriver[] = "jenkins-agent";
constexpr int64_t kSoon = 14 * 24 * 3600;  // seconds before a certificate's end

// An object's member, or null: Nomad leaves out what is empty.
const Json& At(const Json& object, const char* key) {
  static const auto& null = *new Json();
  const auto it = object.is_object() ? object.find(key) : object.end();
  return object.is_object() && it != object.end() ? *it : null;
}
std::string TextAt(const Json& object, const char* key) {
  const Json& value = At(object, key);
  return value.is_string() ? value.get<std::string>() : "";
}
bool FlagAt(const Json& object, const char* key) {
  const Json& value = At(object, key);
  return value.is_boolean() && value.get<bool>();
}
double NumberAt(const Json& object, const char* key) {
  const Json& value = At(object, key);
  return value.is_number() ? value.get<double>() : 0;
}

absl::StatusOr<Json> Parse(absl::string_view text) {
  Json json = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (json.is_object()) return json;
  return absl::InvalidArgumentError("the answer is no JSON object");
}

Findings CheckPluginFile(const std::string& plugin_dir) {
  const std::string file = absl::StrCat(plugin_dir, "/", kFileName);
  struct stat info = {};
  if (plugin_dir.empty())
    return {Fail("plugin file", "no plugin_dir", "set plugin_dir, an absolute path")};
  if (plugin_dir[0] != '/') {
    return {Fail("plugin file", absl::StrCat("plugin_dir ", plugin_dir, " is relative"),
                 "give plugin_dir as an absolute path")};
  }
  if (::stat(file.c_str(), &info) != 0) {
    return {Fail("plugin file", absl::StrCat(file, " is not there"),
                 absl::StrCat("copy the file into plugin_dir under the name ", kFileName))};
  }
  if ((info.st_mode & 0111) == 0) {
    return {Fail("plugin file", absl::StrCat(file, " is not executable"), "chmod 755")};
  }
  if (info.st_uid != 0 || (info.st_mode & 0022) != 0) {
    return {Fail("plugin file", absl::StrCat(file, " can be changed by others than root"),
                 "chown root and chmod 755: Nomad runs it as root")};
  }
  return {Ok("plugin file", file)};
}

// The answer that shows whether the token has a right.
struct Right {
  const char* path;
  const char* right;
  const char* need;
};
constexpr Right kRights[] = {
    {"/v1/nodes", "node:read", "explain needs it"},
    {"/v1/jobs", "namespace:list-jobs", "explain --all-blocked needs it"},
    {"/v1/allocations", "namespace:read-job", "explain needs it"},
    {"/v1/operator/scheduler/configuration", "operator:read",
     "explain knows nothing of oversubscription and preemption without it"},
};

void CheckRights(nomad::Client& client, Findings& findings) {
  for (const Right& right : kRights) {
    const absl::StatusOr<nomad::Answer> answer = client.Get(right.path, {{"per_page", "1"}});
    const std::string name = absl::StrCat("right ", right.right);
    if (answer.ok()) {
      findings.push_back(Ok(name, "the token has it"));
    } else if (absl::IsPermissionDenied(answer.status())) {
      findings.push_back(Warn(name, "403: the token does not have it",
                              absl::StrCat("add it to the token's policy: ", right.need)));
    } else {
      findings.push_back(Warn(name, answer.status().message(), "look at the Nomad server"));
    }
  }
}

void CheckSettings(nomad::Client& client, Findings& findings) {
  const auto answer = client.Get("/v1/operator/scheduler/configuration", {});
  if (!answer.ok()) return;  // CheckRights says why
  const absl::StatusOr<Json> json = Parse(answer->body);
  if (!json.ok()) return;
  const bool on = FlagAt(At(*json, "SchedulerConfig"), "MemoryOversubscriptionEnabled");
  findings.push_back(on ? Ok("memory_max", "memory oversubscription is on")
                        : Warn("memory_max",
                               "memory oversubscription is off: memory_max is ignored",
                               "if jobs use it: nomad operator scheduler set-config "
                               "-memory-oversubscription=true"));
}

Finding CheckCertificate(const std::string& name, const std::string& path, int64_t now_s) {
  const absl::StatusOr<std::string> pem = ReadFile(path);
  if (!pem.ok()) return Fail(name, pem.status().message(), "correct the path or its permissions");
  const std::unique_ptr<BIO, decltype(&::BIO_free)> bio(
      ::BIO_new_mem_buf(pem->data(), static_cast<int>(pem->size())), &::BIO_free);
  const std::unique_ptr<X509, decltype(&::X509_free)> certificate(
      ::PEM_read_bio_X509(bio.get(), nullptr, nullptr, nullptr), &::X509_free);
  tm end = {};
  if (certificate == nullptr ||
      ::ASN1_TIME_to_tm(::X509_get0_notAfter(certificate.get()), &end) != 1) {
    return Fail(name, absl::StrCat(path, " holds no certificate in PEM form"), "correct the path");
  }
  const int64_t end_s = ::timegm(&end);
  char day[11];
  ::strftime(day, sizeof(day), "%Y-%m-%d", &end);
  const std::string found = absl::StrCat(path, " ends on ", day);
  if (end_s <= now_s) return Fail(name, found, "renew it");
  return end_s <= now_s + kSoon ? Warn(name, found, "renew it soon") : Ok(name, found);
}

}  // namespace

absl::StatusOr<NomadAgentFacts> ParseAgentSelf(absl::string_view json) {
  ASSIGN_OR_RETURN(const Json self, Parse(json));
  const Json& config = At(self, "config");
  NomadAgentFacts facts;
  facts.version = TextAt(At(config, "Version"), "Version");
  facts.client = FlagAt(At(config, "Client"), "Enabled");
  facts.plugin_dir = TextAt(config, "PluginDir");
  facts.node_id = TextAt(At(At(self, "stats"), "client"), "node_id");
  for (const Json& plugin : At(config, "Plugins")) {
    if (TextAt(plugin, "Name") == kFileName)
      facts.state_dir = TextAt(At(plugin, "Config"), "state_dir");
  }
  return facts;
}

absl::StatusOr<NomadNodeFacts> ParseNode(absl::string_view json) {
  ASSIGN_OR_RETURN(const Json node, Parse(json));
  NomadNodeFacts facts;
  facts.name = TextAt(node, "Name");
  facts.datacenter = TextAt(node, "Datacenter");
  facts.pool = TextAt(node, "NodePool");
  facts.status = TextAt(node, "Status");
  facts.eligible = TextAt(node, "SchedulingEligibility") == "eligible";
  facts.draining = FlagAt(node, "Drain");
  const Json& reserved = At(node, "ReservedResources");
  facts.reserves_something = NumberAt(At(reserved, "Cpu"), "CpuShares") > 0 ||
                             NumberAt(At(reserved, "Memory"), "MemoryMB") > 0 ||
                             NumberAt(At(reserved, "Disk"), "DiskMB") > 0;
  const Json& driver = At(At(node, "Drivers"), kDriver);
  facts.driver_detected = FlagAt(driver, "Detected");
  facts.driver_healthy = FlagAt(driver, "Healthy");
  facts.driver_text = TextAt(driver, "HealthDescription");
  const Json& attributes = At(node, "Attributes");
  facts.driver_version = TextAt(attributes, "driver.jenkins-agent.version");
  facts.cgroups = TextAt(attributes, "os.cgroups.version");
  return facts;
}

Findings CheckAgentFacts(const NomadAgentFacts& agent) {
  Findings findings = {Ok("nomad agent", absl::StrCat("version ", agent.version))};
  if (!agent.client) {
    findings.push_back(Warn("nomad client", "this agent is no client: it runs no tasks",
                            "run doctor on a client, or set NOMAD_ADDR to one"));
    return findings;
  }
  for (Finding& finding : CheckPluginFile(agent.plugin_dir)) findings.push_back(std::move(finding));
  return findings;
}

Findings CheckNodeFacts(const NomadNodeFacts& node, absl::string_view own_cgroups) {
  Findings findings;
  const std::string where =
      absl::StrCat(node.name, ", datacenter ", node.datacenter, ", pool ", node.pool);
  if (!node.driver_detected) {
    findings.push_back(Fail("driver", "Nomad has not detected it",
                            absl::StrCat("is there a block plugin \"", kFileName,
                                         "\" { }? The agent's log says why it does not load")));
  } else if (!node.driver_healthy) {
    findings.push_back(Fail("driver", absl::StrCat("unhealthy: ", node.driver_text),
                            "correct what it names; Nomad places no agent here meanwhile"));
  } else {
    findings.push_back(
        Ok("driver", absl::StrCat("version ", node.driver_version, ", ", node.driver_text)));
  }
  if (node.status != "ready") {
    findings.push_back(
        Fail("node", absl::StrCat(where, " is ", node.status), "restart its Nomad agent"));
  } else if (node.draining || !node.eligible) {
    findings.push_back(Warn("node",
                            absl::StrCat(where, node.draining ? " drains" : " is not eligible"),
                            "nomad node eligibility -enable -self, when it shall have jobs again"));
  } else {
    findings.push_back(Ok("node", absl::StrCat(where, ", ready")));
  }
  if (!node.cgroups.empty() && !own_cgroups.empty() && node.cgroups != own_cgroups) {
    findings.push_back(Fail(
        "cgroup mode", absl::StrCat("Nomad sees v", node.cgroups, ", the driver v", own_cgroups),
        "boot with one mode only (systemd.unified_cgroup_hierarchy)"));
  } else if (!node.cgroups.empty()) {
    findings.push_back(Ok("cgroup mode", absl::StrCat("v", node.cgroups, " for Nomad and driver")));
  }
  findings.push_back(node.reserves_something
                         ? Ok("reserved", "something is kept for the host itself")
                         : Warn("reserved", "nothing is kept for the host itself",
                                "set client { reserved { cpu, memory, disk } }"));
  return findings;
}

Findings CheckTlsFiles(const nomad::Endpoint& endpoint, int64_t now_s) {
  Findings findings;
  if (!endpoint.ca_file.empty()) {
    findings.push_back(CheckCertificate("NOMAD_CACERT", endpoint.ca_file, now_s));
  }
  if (!endpoint.client_cert.empty()) {
    findings.push_back(CheckCertificate("NOMAD_CLIENT_CERT", endpoint.client_cert, now_s));
  }
  if (!endpoint.client_key.empty() && ::access(endpoint.client_key.c_str(), R_OK) != 0) {
    findings.push_back(Fail("NOMAD_CLIENT_KEY",
                            absl::StrCat(endpoint.client_key, " cannot be read"),
                            "correct the path or its permissions"));
  }
  return findings;
}

NomadChecks CheckNomad(nomad::Client& client, absl::string_view own_cgroups) {
  NomadChecks checks;
  Findings& findings = checks.findings;
  const auto self = client.Get("/v1/agent/self", {});
  if (absl::IsUnavailable(self.status())) {
    findings.push_back(Warn("nomad agent",
                            absl::StrCat(client.endpoint().shown, ": ", self.status().message()),
                            "start it, or set NOMAD_ADDR; what Nomad knows was not checked"));
    return checks;
  }
  if (!self.ok()) {
    findings.push_back(Warn("right agent:read", self.status().message(),
                            "a token with agent { policy = \"read\" } shows the driver's state"));
    CheckRights(client, findings);
    return checks;
  }
  const auto agent = ParseAgentSelf(self->body);
  if (!agent.ok()) {
    findings.push_back(
        Warn("nomad agent", agent.status().message(), "is NOMAD_ADDR a Nomad agent?"));
    return checks;
  }
  checks.state_dir = agent->state_dir;
  for (Finding& finding : CheckAgentFacts(*agent)) findings.push_back(std::move(finding));
  if (!agent->node_id.empty()) {
    const auto page = client.Get(absl::StrCat("/v1/node/", nomad::Escape(agent->node_id)), {});
    const auto node =
        page.ok() ? ParseNode(page->body) : absl::StatusOr<NomadNodeFacts>(page.status());
    if (node.ok()) {
      for (Finding& finding : CheckNodeFacts(*node, own_cgroups))
        findings.push_back(std::move(finding));
    } else {
      findings.push_back(Warn("node", node.status().message(), "the token needs node:read"));
    }
  }
  CheckRights(client, findings);
  CheckSettings(client, findings);
  return checks;
}

}  // namespace jenkins_agent
