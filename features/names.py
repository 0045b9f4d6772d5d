"""Given names that are names wherever they stand in a resume (`name_positions` finds others where a name can stand).

A name says nothing about whether somebody can do a job, but it moves the embedding of the text around it, and with it
the ranking. The list is of common names of several countries, and those of Bertrand and Mullainathan (2004), "Are Emily
and Greg more employable than Lakisha and Jamal?". Names that are a trade, a place or an everyday word are not in it
(Mason, Charlotte, Sofia, Grace, Jan, and Julia, the language): a resume loses more by them than it gains.
"""

from __future__ import annotations

_NAMES = """
Aaron Abdul Abdullah Abigail Adam Adele Adrian Adriana Agata Agnes Agnieszka Ahmad Ahmed Aisha Alan Albert Alberto
Alejandra Alejandro Aleksandra Alessandro Alessia Alexander Alexandra Alexandre Alexei Alfred Ali Alice Alicia Alina
Alison Allison Amanda Amelia Amina Amir Amy Ana Anastasia Andre Andrea Andreas Andrei Andrew Andrzej Angela Angelina
Anita Anja Ann Anna Anne Annette Annika Antoine Anton Antonia Antonio Arjun Arthur Ashley Astrid Aurelie Ayesha Aylin
Barbara Bartosz Beata Beatrice Benjamin Bernard Bernd Beth Bettina Bjorn Bogdan Brad Bradley Brandon Brenda Brendan
Brett Brian Brigitte Bruno Bryan Camila Camille Carl Carla Carlos Carmen Carol Caroline Carolyn Carrie Catherine Cathy
Cecilia Celine Chantal Charles Charlie Cheryl Chloe Christa Christina Christine Christoph Christopher Cindy Claire
Clara Claudia Claus Colin Corinna Craig Cynthia Dagmar Daniel Daniela Danielle Darnell Darren David Deborah Debra
Deepak Denise Dennis Derek Diana Diane Diego Dieter Dimitri Dirk Dmitri Dominik Dominique Donald Donna Doris Dorothy
Douglas Edith Eduardo Edward Eleanor Elena Elif Elisabeth Elizabeth Ella Ellen Emily Emine Emma Emmanuel Eric Erica
Erik Erika Erin Esther Ethan Eugene Eva Evelyn Fabian Fatima Fatma Felicitas Felix Fernando Filip Fiona Florian
Frances Francesca Francesco Francois Frederic Friedrich Gabriel Gabriela Gareth Geoffrey George Gerald Gerhard
Gianluca Gillian Giovanni Giulia Gloria Greg Gregory Gretchen Guillaume Gustavo Hakim Hannah Hans Harold Harry Hassan
Heather Heidi Heike Heinz Helen Helena Helga Henrik Henry Hiroshi Holger Hugo Hussein Ian Ibrahim Ines Inga Ingrid
Irene Irina Isabel Isabella Isabelle Ivan Ivana Jacob Jacqueline Jakub Jamal James Jamie Jane Janet Janice Janine
Jason Javier Jean Jeff Jeffrey Jennifer Jens Jeremy Jermaine Jessica Jill Jim Joan Joanna Joao Joel Johanna Johannes
John Jonas Jonathan Jorge Jose Josef Joseph Joshua Juan Judith Judy Julian Juliane Julie Justin Justyna Kamila
Kareem Karen Karin Karina Karl Karolina Katarzyna Kate Katharina Katherine Kathleen Kathryn Katja Katrin Keisha Keith
Kelly Kemal Kenneth Kerstin Kevin Khadija Klaus Kristen Kristin Kristina Krzysztof Kyle Lakisha Lars Latonya Latoya
Laura Lauren Laurence Laurie Leila Lena Leon Leonard Leonardo Leonie Leroy Liam Lieselotte Linda Lisa Louis Louise
Luca Lucas Lucia Lucy Ludwig Luis Lukas Luke Lydia Magdalena Magnus Maja Malgorzata Malik Manuel Manuela Marc Marcel
Marcia Marco Marcus Margaret Margarita Maria Marian Marianne Marie Marina Mario Marion Mark Markus Marta Martha Martin
Martina Mary Mateusz Mathias Matteo Matthew Matthias Maurice Megan Mehmet Melanie Melissa Meredith Michael Michaela
Michal Michele Michelle Miguel Mihai Mike Mikhail Mohamed Mohammad Mohammed Monica Monika Muhammad Mustafa Nadia
Nadine Nancy Natalia Natalie Natasha Nathan Neil Nicholas Nicola Nicolas Nicole Niklas Nikolai Nina Noah Noemi Nora
Norbert Norman Nuria Olaf Oleg Olga Oliver Olivia Omar Oscar Otto Pablo Pamela Paolo Patricia Patrick Patrizia Paul
Paula Pauline Pawel Pedro Peggy Peter Petra Philip Philipp Philippe Phillip Pierre Piotr Priya Rachel Rafael Rahul
Rajesh Ralf Ralph Ramona Randy Raquel Rasheed Raymond Rebecca Regina Reinhard Renate Rene Ricardo Richard Rita Robert
Roberto Roger Roland Rolf Roman Ronald Rosa Ross Roxana Russell Ruth Ryan Sabine Sabrina Salma Sam Samantha Samir
Samuel Sandra Sanjay Sara Sarah Sascha Scott Sean Sebastian Serena Sergei Sergio Shannon Sharon Sheila Shirley Silke
Silvia Simon Simone Sonia Sonja Sophia Sophie Stacy Stefan Stefanie Stella Stephan Stephanie Stephen Steve
Steven Susan Susanne Sven Svenja Svetlana Sylvia Tamara Tamika Tanisha Tanja Tatiana Teresa Terry Theodor Theresa
Thomas Thorsten Tiago Tim Timothy Tina Tobias Todd Tom Tomas Tomasz Tony Tracy Tremayne Tyrone Ulrich Ulrike Ursula
Ute Uwe Valentina Valeria Valerie Vanessa Vera Veronica Viktor Viktoria Vincent Vladimir Walter Wanda Wayne Wendy
Werner William Wojciech Wolfgang Xavier Yasmin Yusuf Yves Yvonne Zachary Zeynep Zoe Zofia
"""

GIVEN_NAMES = frozenset(_NAMES.split())
"""Each with its capital letter, and without accents."""

LETTER = r"(?:[^\W\d_]|[\u0300-\u036f])"
"""A letter, or the accent that stands behind one."""

NOT_BEFORE = r"(?<![^\W\d_])(?<![\u0300-\u036f])"
"""Before a word: digits, `_` and signs end one (`Anna_Smith`, `Anna85@`)."""
