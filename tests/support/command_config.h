// A job's `config { command, args }` as Nomad sends it.
#pragma once

#include <string>
#include <vector>

namespace jenkins_agent {

// msgpack (str8, fixarray, fixmap), so strings below 256 bytes and fewer than 16 arguments.
inline std::string CommandConfig(const std::string& command, const std::vector<std::string>& args) {
  const auto text = [](const std::string& s) {
    return std::string{static_cast<char>(0xd9), static_cast<char>(s.size())} + s;
  };
  std::string bytes = "\x82" + text("command") + text(command) + text("args");
  bytes += static_cast<char>(0x90 + args.size());
  for (const std::string& arg : args) bytes += text(arg);
  return bytes;
}

}  // namespace jenkins_agent
