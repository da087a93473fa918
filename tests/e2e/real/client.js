// mqtt.js behind a line protocol, in Node and in a browser. A command and its answer are words:
//   open NAME ID tcp|tls|ws|wss PORT CLEAN WILL|- CA|-    -> ok NAME SESSION_PRESENT
//   sub NAME FILTER QOS | pub NAME TOPIC QOS RETAIN HEX|- -> ok NAME
//   close NAME                                            -> ok NAME
// or: err NAME TEXT. By themselves come: msg NAME TOPIC QOS RETAIN HEX|- and up NAME (connected again).
'use strict'

function speaker (mqtt, emit, readFile) {
  const clients = {}
  const hex = (bytes) => Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('') || '-'
  const bytes = (text) => Buffer.from(text === '-' ? '' : text, 'hex')

  function open (name, id, carrier, port, clean, will, ca) {
    const path = carrier.startsWith('ws') ? '/mqtt' : ''
    const scheme = { tcp: 'mqtt', tls: 'mqtts', ws: 'ws', wss: 'wss' }[carrier]
    let opened = false
    const client = mqtt.connect(`${scheme}://127.0.0.1:${port}${path}`, {
      clientId: id,
      clean: clean === '1',
      protocolVersion: 5,
      properties: { sessionExpiryInterval: clean === '1' ? 0 : 600 },
      reconnectPeriod: 100,
      will: will === '-' ? undefined : { topic: will, payload: Buffer.from('gone'), qos: 1, retain: false },
      ca: ca === '-' || !readFile ? undefined : readFile(ca)
    })
    clients[name] = client
    client.on('connect', (connack) => {
      emit(opened ? `up ${name}` : `ok ${name} ${connack.sessionPresent ? 1 : 0}`)
      opened = true
    })
    client.on('message', (topic, payload, packet) =>
      emit(`msg ${name} ${topic} ${packet.qos} ${packet.retain ? 1 : 0} ${hex(payload)}`))
    client.on('error', (error) => {
      if (!opened) {
        opened = true
        client.end(true)
        emit(`err ${name} ${error.message}`)
      }
    })
    if (!readFile) { // a browser says no more than that it did not work
      client.stream.on('error', () => client.emit('error', new Error('refused')))
    }
  }

  return function command (line) {
    const [verb, name, ...rest] = line.split(' ')
    const answer = (error) => emit(error ? `err ${name} ${error.message}` : `ok ${name}`)
    const client = clients[name]
    if (verb === 'open') open(name, ...rest)
    else if (verb === 'sub') client.subscribe(rest[0], { qos: Number(rest[1]) }, answer)
    else if (verb === 'pub') {
      client.publish(rest[0], bytes(rest[3]), { qos: Number(rest[1]), retain: rest[2] === '1' }, answer)
    } else if (verb === 'close') client.end(false, {}, answer)
    else emit(`err ${name} no command ${verb}`)
  }
}

if (typeof window === 'undefined') {
  const fs = require('fs')
  const readline = require('readline')
  const command = speaker(require(process.argv[2]), (line) => process.stdout.write(line + '\n'), fs.readFileSync)
  readline.createInterface({ input: process.stdin }).on('line', command).on('close', () => process.exit(0))
} else {
  window.heard = []
  window.command = speaker(window.mqtt, (line) => window.heard.push(line))
}
