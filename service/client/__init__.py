"""The client, imported as `saccade.client`. It needs no other room, and numpy and Pillow only for masks and pixels.

clients.py   `Client` and `AsyncClient`: one connection pool each, and the loop that sends again
calls.py     what is sent, what an answer means, and when it is worth sending again: decisions without a connection
pictures.py  pictures as callers have them, to bytes and back
answers.py   typed answers; masks.py reads their masks, vectors.py their vectors,
             produced.py pictures that networks made, drawing.py draws over the picture
errors.py    what can go wrong
"""
