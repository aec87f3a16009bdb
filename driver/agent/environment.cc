#include "driver/agent/environment.h"

#include <string.h>

#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "driver/base/status.h"

namespace jenkins_agent {
namespace {

using Environment = std::map<std::string, std::string>;

std::string Lookup(const Environment& env, const std::string& name) {
  const auto it = env.find(name);
  return it == env.end() ? std::string() : std::string(absl::StripAsciiWhitespace(it->second));
}

void Wipe(std::string& text) { ::explicit_bzero(text.data(), text.size()); }

void WipeAndErase(Environment& env, const std::string& name) {
  const auto it = env.find(name);
  if (it == env.end()) return;
  Wipe(it->second);
  env.erase(it);
}

// Words as a POSIX shell splits them: white space, '..', ".." and backslash; nothing is expanded.
absl::StatusOr<std::vector<std::string>> SplitShellWords(absl::string_view text) {
  std::vector<std::string> words;
  std::string word;
  bool in_word = false;
  char quote = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (quote == '\'' && c != quote) {
      word += c;
    } else if (c == '\\' && i + 1 < text.size() &&
               (quote == 0 || text[i + 1] == '"' || text[i + 1] == '\\')) {
      word += text[++i];
      in_word = true;
    } else if (c == quote) {
      quote = 0;
    } else if (quote == 0 && (c == '"' || c == '\'')) {
      quote = c;
      in_word = true;
    } else if (quote == 0 && absl::ascii_isspace(c)) {
      if (in_word) words.push_back(std::exchange(word, {}));
      in_word = false;
    } else {
      word += c;
      in_word = true;
    }
  }
  if (quote != 0) return absl::InvalidArgumentError("REMOTING_OPTS: unbalanced quotes");
  if (in_word) words.push_back(std::move(word));
  return words;
}

void SetIfEmpty(std::string& field, const std::string& value) {
  if (field.empty()) field = value;
}

// What the options of a REMOTING_OPTS mean to us; the rest is the agent's business. `given`: the
// agent as the job describes it, whose options win.
struct RemotingOption {
  const char* name;
  void (*apply)(pb::AgentSpec& agent, const pb::AgentSpec& given, const std::string& value);
};

const RemotingOption kRemotingOptions[] = {
    {"-url",
     [](pb::AgentSpec& agent, const pb::AgentSpec& given, const std::string& value) {
       if (given.urls().empty()) agent.add_urls(value);
     }},
    {"-secret", [](pb::AgentSpec& agent, const pb::AgentSpec&,
                   const std::string& value) { SetIfEmpty(*agent.mutable_secret(), value); }},
    {"-name", [](pb::AgentSpec& agent, const pb::AgentSpec&,
                 const std::string& value) { SetIfEmpty(*agent.mutable_name(), value); }},
    {"-tunnel", [](pb::AgentSpec& agent, const pb::AgentSpec&,
                   const std::string& value) { SetIfEmpty(*agent.mutable_tunnel(), value); }},
    {"-workDir", [](pb::AgentSpec& agent, const pb::AgentSpec&,
                    const std::string& value) { SetIfEmpty(*agent.mutable_root_dir(), value); }},
    {"-direct", [](pb::AgentSpec& agent, const pb::AgentSpec&,
                   const std::string& value) { SetIfEmpty(*agent.mutable_direct(), value); }},
    {"-instanceIdentity",
     [](pb::AgentSpec& agent, const pb::AgentSpec&, const std::string& value) {
       SetIfEmpty(*agent.mutable_instance_identity(), value);
     }},
    {"-webSocketHeader",
     [](pb::AgentSpec& agent, const pb::AgentSpec& given, const std::string& value) {
       if (given.web_socket_headers().empty()) agent.add_web_socket_headers(value);
     }},
};

absl::Status MergeRemotingOptions(absl::string_view text, pb::AgentSpec& agent) {
  ASSIGN_OR_RETURN(std::vector<std::string> words, SplitShellWords(text));
  const pb::AgentSpec given = agent;
  for (size_t i = 0; i < words.size(); ++i) {
    const RemotingOption* known = nullptr;
    for (const RemotingOption& option : kRemotingOptions) {
      if (words[i] == option.name) known = &option;
    }
    if (words[i] == "-webSocket") {
      agent.set_web_socket(true);
    } else if (known == nullptr) {
      agent.add_extra_args(words[i]);
    } else if (i + 1 == words.size()) {
      return absl::InvalidArgumentError(
          absl::StrCat("REMOTING_OPTS: ", words[i], " needs a value"));
    } else {
      known->apply(agent, given, words[++i]);
    }
  }
  for (std::string& word : words) Wipe(word);
  return absl::OkStatus();
}

}  // namespace

absl::Status MergeEnvironment(Environment& env, pb::AgentSpec& agent) {
  const std::string name = Lookup(env, "JENKINS_NAME");
  SetIfEmpty(*agent.mutable_name(), name.empty() ? Lookup(env, "JENKINS_AGENT_NAME") : name);
  const std::string url = Lookup(env, "JENKINS_URL");
  if (agent.urls().empty() && agent.direct().empty() && !url.empty()) agent.add_urls(url);
  SetIfEmpty(*agent.mutable_secret(), Lookup(env, "JENKINS_SECRET"));
  SetIfEmpty(*agent.mutable_tunnel(), Lookup(env, "JENKINS_TUNNEL"));
  SetIfEmpty(*agent.mutable_root_dir(), Lookup(env, "JENKINS_AGENT_WORKDIR"));
  SetIfEmpty(*agent.mutable_direct(), Lookup(env, "JENKINS_DIRECT_CONNECTION"));
  SetIfEmpty(*agent.mutable_instance_identity(), Lookup(env, "JENKINS_INSTANCE_IDENTITY"));
  if (Lookup(env, "JENKINS_WEB_SOCKET") == "true") agent.set_web_socket(true);
  const absl::Status merged = MergeRemotingOptions(Lookup(env, "REMOTING_OPTS"), agent);
  WipeAndErase(env, "JENKINS_SECRET");
  WipeAndErase(env, "REMOTING_OPTS");
  return merged;
}

std::vector<std::string> JvmOptionsFromEnvironment(const Environment& env) {
  std::string text = Lookup(env, "JENKINS_JAVA_OPTS");
  if (text.empty()) text = Lookup(env, "JAVA_OPTS");
  return absl::StrSplit(text, absl::ByAnyChar(" \t\r\n"), absl::SkipEmpty());
}

}  // namespace jenkins_agent
